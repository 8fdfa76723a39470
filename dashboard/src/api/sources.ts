/** Webhook sources: the receivers of deliveries from GitHub and other services. */

import { queryOptions } from '@tanstack/react-query';

import { body, client, type Schemas } from './client';

export type WebhookSource = Schemas['WebhookSourceView'];
export type RepoOverride = Schemas['RepoOverrideView'];
export type Delivery = Schemas['DeliveryView'];
export type DeliveryOutcome = Delivery['outcome'];

/** The conditions that explain why a source does not work: `Ready` only repeats another one. */
export function causes(failing: WebhookSource['conditions']): WebhookSource['conditions'] {
  const others = failing.filter((condition) => condition.type !== 'Ready');
  return others.length > 0 ? others : failing;
}

/** The API keeps this many deliveries of a source. */
const MOST_DELIVERIES = 200;

export const sourcesQuery = queryOptions({
  queryKey: ['sources'],
  queryFn: ({ signal }) => body(client.GET('/api/webhook-sources', { signal })),
});

export const sourceQuery = (name: string) =>
  queryOptions({
    queryKey: ['source', name],
    queryFn: () => readSource(name),
  });

/** The latest deliveries of a source. Changes of the source make them stale. */
export const deliveriesQuery = (name: string, outcome: DeliveryOutcome | undefined) =>
  queryOptions({
    queryKey: ['source', name, 'deliveries', outcome],
    queryFn: ({ signal }) =>
      body(
        client.GET('/api/webhook-sources/{name}/deliveries', {
          params: { path: { name }, query: { limit: MOST_DELIVERIES, ...(outcome && { outcome }) } },
          signal,
        }),
      ),
  });

/** The deliveries of a source whose payload is stored. */
export const recordedQuery = (name: string) =>
  queryOptions({
    queryKey: ['source', name, 'recorded'],
    queryFn: async ({ signal }) =>
      (
        await body(
          client.GET('/api/webhook-sources/{name}/deliveries', {
            params: { path: { name }, query: { limit: MOST_DELIVERIES } },
            signal,
          }),
        )
      ).deliveries.filter((each) => each.hasPayload),
  });

export async function readDelivery(name: string, id: string): Promise<Schemas['DeliveryDetail']> {
  return body(
    client.GET('/api/webhook-sources/{name}/deliveries/{delivery_id}', { params: { path: { name, delivery_id: id } } }),
  );
}

export async function readSource(name: string): Promise<WebhookSource> {
  return body(client.GET('/api/webhook-sources/{name}', { params: { path: { name } } }));
}

export async function createSource(source: Schemas['WebhookSourceBody'], key: string): Promise<WebhookSource> {
  return body(client.POST('/api/webhook-sources', { body: source, params: { header: { 'Idempotency-Key': key } } }));
}

export async function changeSource(name: string, changes: Schemas['WebhookSourcePatch']): Promise<WebhookSource> {
  return body(client.PATCH('/api/webhook-sources/{name}', { body: changes, params: { path: { name } } }));
}

export async function removeSource(name: string): Promise<void> {
  await body(client.DELETE('/api/webhook-sources/{name}', { params: { path: { name } } }));
}
