import { expect, test } from 'vitest';

import type { Agent } from '../../api/agents';
import type { Instruction } from '../../api/instructions';
import {
  EMPTY_INSTRUCTION,
  firstParagraph,
  instructionBody,
  instructionDraft,
  ordered,
  usesInWords,
  usesOf,
} from './instruction-draft';

const view = (fields: Partial<Instruction>): Instruction => ({
  id: 'a',
  name: 'a',
  scope: 'local',
  displayName: '',
  description: '',
  priority: 0,
  content: 'x',
  resourceVersion: '1',
  ...fields,
});

test('globals stand in the order of prompts, and locals by name', () => {
  const { global, local } = ordered([
    view({ name: 'z' }),
    view({ name: 'g2', scope: 'global', priority: 5 }),
    view({ name: 'b' }),
    view({ name: 'g1', scope: 'global', priority: -1 }),
    view({ name: 'g0', scope: 'global', priority: 5 }),
  ]);
  expect([...global, ...local].map((each) => each.name)).toEqual(['g1', 'g0', 'g2', 'b', 'z']);
});

test('an instruction is used by agents that name it, and by triggers', () => {
  const agents = [
    { name: 'one', instructions: ['a'], eventTriggers: [] },
    { name: 'two', instructions: [], eventTriggers: [{ instruction: 'a' }] },
    { name: 'three', instructions: ['b'], eventTriggers: [{ instruction: null }] },
  ] as unknown as Agent[];
  expect(usesOf('a', agents).map(({ agent, by }) => [agent.name, by])).toEqual([
    ['one', 'agent'],
    ['two', 'trigger'],
  ]);
  expect([usesInWords(usesOf('a', agents)), usesInWords(usesOf('b', agents)), usesInWords([])]).toEqual([
    'by one, and in a trigger of two',
    'by three',
    '',
  ]);
});

test('leading space of the text is kept, and a text of spaces is missing', () => {
  expect(instructionBody({ ...instructionDraft(view({ content: '  indented\n' })), priority: '' })).toMatchObject({
    problems: {},
    body: { content: '  indented\n', priority: 0 },
  });
  expect(instructionBody({ ...EMPTY_INSTRUCTION, content: '  ', priority: 'x' }).problems).toEqual({
    name: 'is required',
    content: 'is required',
    priority: 'must be a number',
  });
});

test('the purpose of an instruction is its first paragraph, without a sentence cut in the middle', () => {
  expect(firstParagraph('# Title\n\nImplement the issue\nof the event.\n\nThen test it.')).toBe(
    'Implement the issue of the event.',
  );
  expect(firstParagraph(`First. Second. ${'word '.repeat(60)}`)).toBe('First. Second.');
  expect(firstParagraph('word '.repeat(60))).toMatch(/word…$/);
  expect([firstParagraph('# Only a title'), firstParagraph('')]).toEqual(['', '']);
});
