/** Agents: the events that start them, and the defaults of their jobs. */

import { queryOptions } from '@tanstack/react-query';

import { body, client, type Schemas } from './client';

export type Agent = Schemas['AgentView'];
export type Trigger = Schemas['TriggerView'];

export const agentQuery = (name: string) =>
  queryOptions({
    queryKey: ['agent', name],
    queryFn: () => readAgent(name),
  });

export async function readAgent(name: string): Promise<Agent> {
  return body(client.GET('/api/agents/{name}', { params: { path: { name } } }));
}

export async function createAgent(agent: Schemas['AgentBody'], key: string): Promise<Agent> {
  return body(client.POST('/api/agents', { body: agent, params: { header: { 'Idempotency-Key': key } } }));
}

export async function changeAgent(name: string, changes: Schemas['AgentPatch']): Promise<Agent> {
  return body(client.PATCH('/api/agents/{name}', { body: changes, params: { path: { name } } }));
}

export async function removeAgent(name: string): Promise<void> {
  await body(client.DELETE('/api/agents/{name}', { params: { path: { name } } }));
}

/** Add the default agents that are missing. Returns their number. */
export async function seedAgents(): Promise<number> {
  return (await body(client.POST('/api/agents/seed'))).seeded;
}

/** The agent's instructions in the order of its prompt: global ones first. */
export const agentInstructionsQuery = (name: string) =>
  queryOptions({
    queryKey: ['agent', name, 'instructions'],
    queryFn: ({ signal }) =>
      body(client.GET('/api/agents/{name}/instructions', { params: { path: { name } }, signal })),
  });
