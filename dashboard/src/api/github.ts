/** The connection with GitHub: the App that a person creates there, and the repositories. */

import { queryOptions } from '@tanstack/react-query';

import { body, client, type Schemas } from './client';

export type AppForm = Schemas['GitHubAppFormView'];
export type GitHubApp = Schemas['GitHubAppView'];
export type Connection = Schemas['GitHubConnectionView'];

/** The form by which a person creates the App. */
export async function describeApp(app: Schemas['GitHubAppFormBody']): Promise<AppForm> {
  return body(client.POST('/api/github/app/form', { body: app }));
}

/** The App of a code, which works once: the query sends it once. */
export const newAppQuery = (code: string) =>
  queryOptions({
    queryKey: ['github', 'code', code],
    queryFn: () => body(client.POST('/api/github/app', { body: { code } })),
    retry: false,
    staleTime: Infinity,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
  });

export const appQuery = queryOptions({
  queryKey: ['github', 'app'],
  queryFn: ({ signal }) => body(client.GET('/api/github/app', { signal })),
});

export async function connectGitHub(connection: Schemas['GitHubConnectionBody']): Promise<Connection> {
  return body(client.POST('/api/github/connection', { body: connection }));
}
