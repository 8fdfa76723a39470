/** The form of an instruction, the order of instructions, and their users. */

import type { Agent } from '../../api/agents';
import type { Instruction } from '../../api/instructions';
import { visible } from '../../lib/ansi';
import { Texts, type Body, type Problems } from '../../ui/use-form';

export interface InstructionDraft {
  name: string;
  displayName: string;
  description: string;
  scope: string;
  priority: string;
  content: string;
}

export const EMPTY_INSTRUCTION: InstructionDraft = {
  name: '',
  displayName: '',
  description: '',
  scope: 'local',
  priority: '0',
  content: '',
};

export const INSTRUCTION_LABELS: Record<keyof InstructionDraft, string> = {
  name: 'Name',
  displayName: 'Title',
  description: 'Purpose',
  scope: 'Applies to',
  priority: 'Priority',
  content: 'Text',
};

export const SCOPES = [
  ['local', 'The agents that name it'],
  ['global', 'Every agent'],
] as const;

export function instructionDraft(view: Instruction): InstructionDraft {
  return {
    name: view.name,
    displayName: view.displayName,
    description: view.description,
    scope: view.scope,
    priority: String(view.priority),
    content: view.content,
  };
}

export function instructionBody(draft: InstructionDraft): { body: Body; problems: Problems<InstructionDraft> } {
  const texts = new Texts(draft);
  if (draft.content.trim() === '') texts.problems.content = 'is required';
  const body = {
    name: texts.required('name'),
    displayName: draft.displayName.trim(),
    description: draft.description.trim(),
    scope: draft.scope,
    priority: texts.whole('priority') ?? 0,
    content: draft.content,
  };
  return { body, problems: texts.problems };
}

/** Global instructions in the order of prompts, and local ones by name. */
export function ordered(instructions: readonly Instruction[]): { global: Instruction[]; local: Instruction[] } {
  const byName = (one: Instruction, other: Instruction) => (one.name < other.name ? -1 : 1);
  return {
    global: instructions
      .filter((each) => each.scope === 'global')
      .sort((one, other) => one.priority - other.priority || byName(one, other)),
    local: instructions.filter((each) => each.scope === 'local').sort(byName),
  };
}

/** Characters of a text that a list has room for. */
const SHOWN = 240;

/** The first paragraph of a text that is no heading. A long one ends after a sentence, or else after a word. */
export function firstParagraph(text: string): string {
  const lines = text.split('\n').map((line) => (line.startsWith('#') ? '' : line.trim()));
  const begin = lines.findIndex((line) => line !== '');
  if (begin < 0) return '';
  const end = lines.indexOf('', begin);
  const paragraph = lines.slice(begin, end < 0 ? undefined : end).join(' ');
  if (paragraph.length <= SHOWN) return paragraph;
  const start = paragraph.slice(0, SHOWN);
  const sentences = /^.*[.!?](?=\s)/.exec(start)?.[0];
  return sentences ?? `${start.slice(0, Math.max(start.lastIndexOf(' '), 1))}…`;
}

export interface Use {
  agent: Agent;
  /** The agent names it, or a trigger of the agent does. */
  by: 'agent' | 'trigger';
}

/** Where an instruction is used, in words: "by ai-developer, and in a trigger of ai-reviewer". Empty without uses. */
export function usesInWords(uses: readonly Use[]): string {
  const names = (by: Use['by']) => uses.filter((use) => use.by === by).map(({ agent }) => visible(agent.name));
  const agents = names('agent');
  const triggers = names('trigger');
  return [
    agents.length > 0 && `by ${agents.join(', ')}`,
    triggers.length > 0 && `in a trigger of ${triggers.join(', ')}`,
  ]
    .filter(Boolean)
    .join(', and ');
}

/** The agents that name an instruction, themselves or in a trigger. */
export function usesOf(instruction: string, agents: readonly Agent[]): Use[] {
  return agents.flatMap((agent): Use[] => {
    if (agent.instructions.includes(instruction)) return [{ agent, by: 'agent' }];
    return agent.eventTriggers.some((trigger) => trigger.instruction === instruction) ? [{ agent, by: 'trigger' }] : [];
  });
}
