/** The settings of jobs, and the defaults that the engine resolves them from. */

import { queryOptions } from '@tanstack/react-query';

import { body, client, type Schemas } from './client';

export const PROVIDERS = [
  'claude',
  'codex',
  'acp',
  'openai',
  'vllm',
  'gemma',
  'qwen',
  'mock',
] as const satisfies readonly Schemas['AiModelBody']['provider'][];
export const LOCAL_PROVIDERS: readonly string[] = ['openai', 'vllm', 'gemma', 'qwen'];
export const EFFORTS = ['low', 'medium', 'high', 'xhigh', 'max'] as const satisfies readonly NonNullable<
  Schemas['ConfigBody']['effort']
>[];
export const ISOLATIONS = ['process', 'sandbox', 'container', 'vm'] as const satisfies readonly NonNullable<
  Schemas['ConfigBody']['isolation']
>[];

export type Provider = (typeof PROVIDERS)[number];
export type Defaults = Schemas['DefaultsView'];

export const defaultsQuery = queryOptions({
  queryKey: ['defaults'],
  queryFn: ({ signal }) => body(client.GET('/api/config/defaults', { signal })),
});

export async function changeDefaults(changes: Schemas['DefaultsBody']): Promise<Defaults> {
  return body(client.PUT('/api/config/defaults', { body: changes }));
}
