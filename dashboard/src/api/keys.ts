/** API keys and facts about the engine. */

import { queryOptions } from '@tanstack/react-query';

import { body, client, type Schemas } from './client';

export type ApiKey = Schemas['ApiKeyView'];
export type NewApiKey = Schemas['NewApiKeyView'];
export type System = Schemas['SystemView'];

export const keysQuery = queryOptions({
  queryKey: ['api-keys'],
  queryFn: ({ signal }) => body(client.GET('/api/api-keys', { signal })),
});

/** Create a key. idempotencyKey: repeated requests with the same one create one key. */
export async function createKey(key: Schemas['ApiKeyBody'], idempotencyKey: string): Promise<NewApiKey> {
  return body(client.POST('/api/api-keys', { body: key, params: { header: { 'Idempotency-Key': idempotencyKey } } }));
}

export async function revokeKey(id: string): Promise<void> {
  await body(client.DELETE('/api/api-keys/{key_id}', { params: { path: { key_id: id } } }));
}

export const systemQuery = queryOptions({
  queryKey: ['system'],
  queryFn: ({ signal }) => body(client.GET('/api/system', { signal })),
});

export const readyQuery = queryOptions({
  queryKey: ['ready'],
  queryFn: ({ signal }) => body(client.GET('/ready', { signal })),
  retry: false,
});
