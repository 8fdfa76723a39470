import './ui/tokens.css';

import { MutationCache, QueryCache, QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { ApiError } from './api/client';
import { sessionQuery } from './api/session';
import { createAppRouter, preloadPage } from './app/router';
import { listenForShortcuts } from './ui/shortcuts';
import { applyTheme } from './ui/theme';

const MAX_RETRIES = 2;
const RETRY_MS = 400;

/** A session that has ended leads to the sign-in page, and from there back. Drafts stay in the tab's storage. */
function noticeEndedSession(error: unknown): void {
  if (!(error instanceof ApiError) || error.status !== 401) return;
  void queries.query({ ...sessionQuery, staleTime: 0 }).then(
    ({ user }) => {
      if (!user && router.state.location.pathname !== '/login')
        void router.navigate({ to: '/login', search: { next: router.state.location.href } });
    },
    () => undefined,
  ); // the page shows errors of its requests
}

const queries = new QueryClient({
  queryCache: new QueryCache({ onError: noticeEndedSession }),
  mutationCache: new MutationCache({ onError: noticeEndedSession }),
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      retryDelay: (failures) => RETRY_MS * 2 ** failures,
      retry: (failures, error) => failures < MAX_RETRIES && error instanceof ApiError && error.isTemporary,
    },
    mutations: { retry: false },
  },
});
const router = createAppRouter(queries);
preloadPage(router);

applyTheme();
listenForShortcuts();
const element = document.getElementById('root');
if (!element) throw new Error('index.html has no element with the id root');
createRoot(element).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <RouterProvider router={router} />
    </QueryClientProvider>
  </StrictMode>,
);
