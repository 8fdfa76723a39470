/** Instructions: texts that become parts of agents' prompts. */

import { queryOptions } from '@tanstack/react-query';

import { body, client, type Schemas } from './client';

export type Instruction = Schemas['InstructionView'];

export const instructionsQuery = queryOptions({
  queryKey: ['instructions'],
  queryFn: ({ signal }) => body(client.GET('/api/instructions', { signal })),
});

export const instructionQuery = (name: string) =>
  queryOptions({
    queryKey: ['instruction', name],
    queryFn: () => readInstruction(name),
  });

export async function readInstruction(name: string): Promise<Instruction> {
  return body(client.GET('/api/instructions/{name}', { params: { path: { name } } }));
}

export async function createInstruction(instruction: Schemas['InstructionBody'], key: string): Promise<Instruction> {
  return body(client.POST('/api/instructions', { body: instruction, params: { header: { 'Idempotency-Key': key } } }));
}

export async function changeInstruction(name: string, changes: Schemas['InstructionPatch']): Promise<Instruction> {
  return body(client.PATCH('/api/instructions/{name}', { body: changes, params: { path: { name } } }));
}

/** isForced: remove it although agents use it. */
export async function removeInstruction(name: string, isForced: boolean): Promise<void> {
  await body(client.DELETE('/api/instructions/{name}', { params: { path: { name }, query: { force: isForced } } }));
}
