/** The queue of each model. */

import { queryOptions } from '@tanstack/react-query';

import { body, client, type Schemas } from './client';

export type Queue = Schemas['QueueView'];

export const queueQuery = queryOptions({
  queryKey: ['queue'],
  queryFn: ({ signal }) => body(client.GET('/api/queue', { signal })),
});
