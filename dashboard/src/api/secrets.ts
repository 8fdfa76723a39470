/** Names of Secrets, to choose credentials from. Values never leave the engine. */

import { queryOptions } from '@tanstack/react-query';

import { body, client } from './client';

export const secretsQuery = queryOptions({
  queryKey: ['secrets'],
  queryFn: ({ signal }) => body(client.GET('/api/secrets', { signal })),
  staleTime: 30_000,
});
