/** AiModels, the queue of each model, and the files of local models. */

import { queryOptions, type QueryClient } from '@tanstack/react-query';

import { body, client, type Schemas } from './client';
import { modelsQuery } from './jobs';

export type AiModel = Schemas['AiModelView'];
export type Queue = Schemas['QueueView'];
export type ConfiguredFile = Schemas['ModelFileView'];
export type FoundFile = Schemas['FoundView'];
export type FileOperation = Schemas['OperationView'];

export const queueQuery = queryOptions({
  queryKey: ['queue'],
  queryFn: ({ signal }) => body(client.GET('/api/queue', { signal })),
});

export async function readModel(name: string): Promise<AiModel> {
  return body(client.GET('/api/ai-models/{name}', { params: { path: { name } } }));
}

export async function createModel(model: Schemas['AiModelBody'], key: string): Promise<AiModel> {
  return body(client.POST('/api/ai-models', { body: model, params: { header: { 'Idempotency-Key': key } } }));
}

export async function changeModel(name: string, changes: Schemas['AiModelPatch']): Promise<AiModel> {
  return body(client.PATCH('/api/ai-models/{name}', { body: changes, params: { path: { name } } }));
}

export async function removeModel(name: string): Promise<void> {
  await body(client.DELETE('/api/ai-models/{name}', { params: { path: { name } } }));
}

/** Read the models and queues again after a change. */
export function refreshModels(queries: QueryClient): Promise<unknown> {
  return Promise.all([
    queries.invalidateQueries({ queryKey: modelsQuery.queryKey }),
    queries.invalidateQueries({ queryKey: queueQuery.queryKey }),
  ]);
}

export const modelFilesQuery = queryOptions({
  queryKey: ['model-files'],
  queryFn: ({ signal }) => body(client.GET('/api/models', { signal })),
  retry: false,
});

export const scanQuery = queryOptions({
  queryKey: ['model-files', 'scan'],
  queryFn: ({ signal }) => body(client.POST('/api/models/scan', { signal })),
  retry: false,
  staleTime: 30_000,
});

export const operationsQuery = queryOptions({
  queryKey: ['model-files', 'operations'],
  queryFn: ({ signal }) => body(client.GET('/api/models/jobs', { signal })),
  retry: false,
});

export const operationLogQuery = (name: string) =>
  queryOptions({
    queryKey: ['model-files', 'log', name],
    queryFn: ({ signal }) => body(client.GET('/api/models/jobs/{name}/logs', { params: { path: { name } }, signal })),
  });

export async function downloadFile(file: Schemas['Download']): Promise<FileOperation> {
  return body(client.POST('/api/models/download', { body: file }));
}

export async function deleteFile(provider: string, filename: string): Promise<void> {
  await body(client.DELETE('/api/models/{provider}/{filename}', { params: { path: { provider, filename } } }));
}
