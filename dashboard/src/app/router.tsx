/** The pages and their URLs. Pages other than the frame are loaded when they are opened. */

import type { QueryClient } from '@tanstack/react-query';
import {
  createRootRouteWithContext,
  createRoute,
  createRouter,
  lazyRouteComponent,
  redirect,
  type RouteComponent,
} from '@tanstack/react-router';

import { ApiError, checkReachable } from '../api/client';
import { agentsQuery } from '../api/jobs';
import { currentSession, pageInsteadOf } from '../api/session';
import { validateJobSearch } from '../features/job/search';
import { validateJobsSearch } from '../features/jobs/search';
import { validateModelsSearch } from '../features/models/search';
import { validateSourceSearch, validateSourcesSearch } from '../features/sources/search';
import { validateStatsSearch } from '../features/stats/search';
import { isSet, parseSearch, stringifySearch, text } from '../lib/search';
import { PageLoading } from '../ui/page';
import { Loading } from '../ui/states';
import { PageError, PageNotFound } from './page-errors';
import { PendingShell, Shell } from './shell';

/**
 * The component of a page, loaded when it is opened. While the engine does not answer, the page says so instead of
 * reloading.
 */
function lazy<T extends Record<K, RouteComponent>, K extends keyof T & string>(
  load: () => Promise<T>,
  name: K,
): RouteComponent {
  return lazyRouteComponent(async () => {
    try {
      return await load();
    } catch (error) {
      await checkReachable();
      throw error; // the engine has a new build: the router loads the page again
    }
  }, name) as RouteComponent;
}

const root = createRootRouteWithContext<{ queries: QueryClient }>()({ notFoundComponent: PageNotFound });

const login = createRoute({
  getParentRoute: () => root,
  path: '/login',
  validateSearch: (search: Record<string, unknown>): { next?: string } => {
    const next = text(search['next']);
    return next ? { next } : {};
  },
  component: lazy(() => import('../features/login/login-route'), 'LoginRoute'),
});

/** All pages that need a signed-in user. */
const app = createRoute({
  getParentRoute: () => root,
  id: 'app',
  beforeLoad: async ({ context, location, preload }) => {
    const me = await currentSession(context.queries);
    if (!me.user) throw redirect({ to: '/login', search: location.href === '/' ? {} : { next: location.href } });
    const next = preload ? undefined : pageInsteadOf(location.href);
    if (next) throw redirect({ href: next, replace: true });
  },
  component: Shell,
  pendingComponent: PendingShell,
});

/** Keep viewers from a page that only changes something. */
async function needsChanges({ context }: { context: { queries: QueryClient } }): Promise<void> {
  const { scopes } = await currentSession(context.queries);
  if (scopes.includes('viewer'))
    throw new ApiError(
      403,
      'forbidden',
      'You are signed in as a viewer, who sees everything and changes nothing. An admin may open this page.',
    );
}

const overview = createRoute({
  getParentRoute: () => app,
  path: '/',
  component: lazy(() => import('../features/overview/overview-page'), 'OverviewPage'),
});

const jobs = createRoute({
  getParentRoute: () => app,
  path: '/jobs',
  validateSearch: validateJobsSearch,
  component: lazy(() => import('../features/jobs/jobs-page'), 'JobsPage'),
});

const newJob = createRoute({
  getParentRoute: () => app,
  path: '/jobs/new',
  beforeLoad: needsChanges,
  validateSearch: (search: Record<string, unknown>): { from?: string } => {
    const from = text(search['from']);
    return from ? { from } : {};
  },
  component: lazy(() => import('../features/new-job/new-job-page'), 'NewJobPage'),
});

const job = createRoute({
  getParentRoute: () => app,
  path: '/jobs/$id',
  remountDeps: ({ params }) => params, // the state of its parts belongs to one job
  validateSearch: validateJobSearch,
  component: lazy(() => import('../features/job/job-page'), 'JobPage'),
});

const jobIndex = createRoute({
  getParentRoute: () => job,
  path: '/',
  beforeLoad: ({ params }) => {
    throw redirect({ to: '/jobs/$id/activity', params, search: true, replace: true });
  },
});

const activity = createRoute({
  getParentRoute: () => job,
  path: '/activity',
  component: lazy(() => import('../features/job/activity-tab'), 'ActivityTab'),
});
const log = createRoute({
  getParentRoute: () => job,
  path: '/log',
  component: lazy(() => import('../features/job/log-tab'), 'LogTab'),
});
const changes = createRoute({
  getParentRoute: () => job,
  path: '/changes',
  component: lazy(() => import('../features/job/changes-tab'), 'ChangesTab'),
});
const input = createRoute({
  getParentRoute: () => job,
  path: '/input',
  component: lazy(() => import('../features/job/input-tab'), 'InputTab'),
});
const result = createRoute({
  getParentRoute: () => job,
  path: '/result',
  component: lazy(() => import('../features/job/result-tab'), 'ResultTab'),
});
const details = createRoute({
  getParentRoute: () => job,
  path: '/details',
  component: lazy(() => import('../features/job/details-tab'), 'DetailsTab'),
});

/** The dialog of a new resource is open. */
const validateCreate = (search: Record<string, unknown>): { create?: true } =>
  isSet(search['create']) ? { create: true } : {};

const models = createRoute({
  getParentRoute: () => app,
  path: '/models',
  validateSearch: validateModelsSearch,
  component: lazy(() => import('../features/models/models-page'), 'ModelsPage'),
});

const modelFiles = createRoute({
  getParentRoute: () => app,
  path: '/models/files',
  component: lazy(() => import('../features/models/model-files-page'), 'ModelFilesPage'),
});

const agents = createRoute({
  getParentRoute: () => app,
  path: '/agents',
  validateSearch: (search: Record<string, unknown>): { role?: string } => {
    const role = text(search['role']);
    return role ? { role } : {};
  },
  beforeLoad: async ({ context, search }) => {
    if (!search.role) return;
    const { agents: all } = await context.queries.query(agentsQuery);
    const found = all.find((each) => each.triggerName === search.role);
    if (found) throw redirect({ to: '/agents/$id/triggers', params: { id: found.id }, replace: true });
  },
  component: lazy(() => import('../features/agents/agents-page'), 'AgentsPage'),
});

const newAgent = createRoute({
  getParentRoute: () => app,
  path: '/agents/new',
  beforeLoad: needsChanges,
  component: lazy(() => import('../features/agents/new-agent-page'), 'NewAgentPage'),
});

const agent = createRoute({
  getParentRoute: () => app,
  path: '/agents/$id',
  remountDeps: ({ params }) => params,
  component: lazy(() => import('../features/agents/agent-page'), 'AgentPage'),
});

const agentIndex = createRoute({
  getParentRoute: () => agent,
  path: '/',
  beforeLoad: ({ params }) => {
    throw redirect({ to: '/agents/$id/triggers', params, replace: true });
  },
});

/** The frame of the agent is there while one of its parts is loaded. */
const partOfAgent = { getParentRoute: () => agent, pendingComponent: () => <Loading rows={5} height={48} /> } as const;

const agentTriggers = createRoute({
  ...partOfAgent,
  path: '/triggers',
  component: lazy(() => import('../features/agents/triggers-tab'), 'TriggersTab'),
});
const agentInstructions = createRoute({
  ...partOfAgent,
  path: '/instructions',
  component: lazy(() => import('../features/agents/instructions-tab'), 'InstructionsTab'),
});
const agentTest = createRoute({
  ...partOfAgent,
  path: '/test',
  validateSearch: (search: Record<string, unknown>): { delivery?: string } => {
    const delivery = text(search['delivery']);
    return delivery ? { delivery } : {};
  },
  component: lazy(() => import('../features/agents/test-tab'), 'TestTab'),
});
const agentJobs = createRoute({
  ...partOfAgent,
  path: '/jobs',
  component: lazy(() => import('../features/agents/jobs-tab'), 'JobsTab'),
});
const agentSettings = createRoute({
  ...partOfAgent,
  path: '/settings',
  component: lazy(() => import('../features/agents/settings-tab'), 'SettingsTab'),
});

const instructions = createRoute({
  getParentRoute: () => app,
  path: '/instructions',
  validateSearch: validateCreate,
  component: lazy(() => import('../features/agents/instructions-page'), 'InstructionsPage'),
});

const instruction = createRoute({
  getParentRoute: () => app,
  path: '/instructions/$id',
  component: lazy(() => import('../features/agents/instruction-page'), 'InstructionPage'),
});

const sources = createRoute({
  getParentRoute: () => app,
  path: '/sources',
  validateSearch: validateSourcesSearch,
  component: lazy(() => import('../features/sources/sources-page'), 'SourcesPage'),
});

const source = createRoute({
  getParentRoute: () => app,
  path: '/sources/$id',
  validateSearch: validateSourceSearch,
  component: lazy(() => import('../features/sources/source-page'), 'SourcePage'),
});

const settingsIndex = createRoute({
  getParentRoute: () => app,
  path: '/settings',
  beforeLoad: () => {
    throw redirect({ to: '/settings/defaults', replace: true });
  },
});
const settingsDefaults = createRoute({
  getParentRoute: () => app,
  path: '/settings/defaults',
  component: lazy(() => import('../features/settings/defaults-page'), 'DefaultsPage'),
});
const settingsKeys = createRoute({
  getParentRoute: () => app,
  path: '/settings/keys',
  beforeLoad: needsChanges,
  validateSearch: validateCreate,
  component: lazy(() => import('../features/settings/keys-page'), 'KeysPage'),
});
const settingsSystem = createRoute({
  getParentRoute: () => app,
  path: '/settings/system',
  component: lazy(() => import('../features/settings/system-page'), 'SystemPage'),
});

const filesIndex = createRoute({
  getParentRoute: () => app,
  path: '/files',
  beforeLoad: () => {
    throw redirect({ to: '/files/pdfs', replace: true });
  },
});
const pdfs = createRoute({
  getParentRoute: () => app,
  path: '/files/pdfs',
  component: lazy(() => import('../features/files/files-page'), 'PdfsPage'),
});
const workspaceFiles = createRoute({
  getParentRoute: () => app,
  path: '/files/workspace',
  component: lazy(() => import('../features/files/files-page'), 'WorkspacePage'),
});

const stats = createRoute({
  getParentRoute: () => app,
  path: '/stats',
  validateSearch: validateStatsSearch,
  component: lazy(() => import('../features/stats/stats-page'), 'StatsPage'),
});

const nowhere = createRoute({ getParentRoute: () => app, path: '$', component: PageNotFound });

const routeTree = root.addChildren([
  login,
  app.addChildren([
    overview,
    jobs,
    newJob,
    job.addChildren([jobIndex, activity, log, changes, input, result, details]),
    models,
    modelFiles,
    agents,
    newAgent,
    agent.addChildren([agentIndex, agentTriggers, agentInstructions, agentTest, agentJobs, agentSettings]),
    instructions,
    instruction,
    sources,
    source,
    filesIndex,
    pdfs,
    workspaceFiles,
    stats,
    settingsIndex,
    settingsDefaults,
    settingsKeys,
    settingsSystem,
    nowhere,
  ]),
]);

export function createAppRouter(queries: QueryClient) {
  return createRouter({
    routeTree,
    context: { queries },
    parseSearch,
    stringifySearch,
    search: { strict: true }, // else values that a page refuses would reach it nevertheless
    defaultPreload: 'intent',
    defaultPendingMs: 150,
    defaultPendingComponent: PageLoading,
    defaultErrorComponent: PageError,
    scrollRestoration: true,
  });
}

/** Load the code of the current page while the session is read. */
export function preloadPage(router: ReturnType<typeof createAppRouter>): void {
  const [routes] = router.getMatchedRoutes(router.latestLocation.pathname);
  for (const route of routes) {
    const component: RouteComponent | undefined = route.options.component;
    void component?.preload?.();
  }
}

declare module '@tanstack/react-router' {
  interface Register {
    router: ReturnType<typeof createAppRouter>;
  }
}
