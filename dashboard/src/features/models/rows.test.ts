import { expect, test } from 'vitest';

import type { AiModel, Queue } from '../../api/models';
import { modelRows, slotChoices, suggestedName } from './rows';

const opus = {
  id: 'claude-opus',
  provider: 'claude',
  model: 'opus',
  slots: 4,
  active: 1,
  queued: 2,
  pausedUntil: null,
} as AiModel;
const queue = (model: string, fields: Partial<Queue> = {}): Queue => ({
  provider: 'claude',
  model,
  aiModel: null,
  slots: 4,
  active: 0,
  waiting: 0,
  oldestCreatedAt: null,
  pausedUntil: null,
  usualSeconds: null,
  ...fields,
});

test('implicit models appear beside AiModels, by name', () => {
  const rows = modelRows([opus], [queue('opus', { active: 3, waiting: 5, usualSeconds: 60 }), queue('haiku')]);
  expect(rows.map((row) => [row.key, row.aiModel?.id])).toEqual([
    ['claude/haiku', undefined],
    ['claude/opus', 'claude-opus'],
  ]);
  expect(rows[1]).toMatchObject({ active: 3, waiting: 5, usualSeconds: 60, slots: 4 });
});

test('an AiModel without a queue shows its own counts', () => {
  expect(modelRows([opus], [])[0]).toMatchObject({ active: 1, waiting: 2, oldestCreatedAt: null });
});

test('the current number of slots is always a choice', () => {
  expect(slotChoices(7)).toContain(7);
  expect(slotChoices(4).filter((each) => each === 4)).toHaveLength(1);
});

test.each([
  ['qwen', 'Qwen/Qwen3-8B', 'qwen-qwen-qwen3-8b'],
  ['vllm', 'a_.b', 'vllm-a.b'],
  ['mock', '--x--', 'mock-x'],
  ['claude', 'x'.repeat(80), `claude-${'x'.repeat(56)}`],
])('the name for %s and %s is %s', (provider, model, name) => {
  expect(suggestedName(provider, model)).toBe(name);
});
