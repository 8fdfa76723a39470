import { expect, test } from 'vitest';

import type { JobEvent } from '../../api/events';
import { callSummary, contains, fold, isSameEntry, wholeText } from './turns';

let seq = 0;
function event(kind: JobEvent['kind'], fields: Partial<JobEvent> = {}): JobEvent {
  seq++;
  return { id: `1-${seq}`, attempt: 1, at: new Date(Date.UTC(2030, 0, 1) + seq * 1000).toISOString(), kind, ...fields };
}

test('consecutive lines are one entry, and another event ends it', () => {
  const entries = fold([
    event('log', { text: 'a' }),
    event('log', { text: 'b' }),
    event('status', { state: 'running' }),
    event('log', { text: 'c' }),
  ]);
  expect(entries.map((entry) => (entry.kind === 'text' ? entry.lines : entry.kind))).toEqual([
    ['a', 'b'],
    'state',
    ['c'],
  ]);
});

test('a call and its answer are one entry, also with other events between them', () => {
  const call = event('tool', { call: 'c1', name: 'Bash', input: { command: 'npm test' } });
  const other = event('tool', { call: 'c2', name: 'Read', input: { path: 'a.ts' } });
  const answer = event('tool', { call: 'c1', name: null, output: 'failed', isError: true });
  const [first, second, ...rest] = fold([call, other, event('log', { text: 'x' }), answer]);
  expect(first).toMatchObject({ kind: 'call', name: 'Bash', output: 'failed', isError: true, endedAt: answer.at });
  expect(second).toMatchObject({ kind: 'call', name: 'Read', output: undefined, endedAt: undefined });
  expect(rest.map((entry) => entry.kind)).toEqual(['text']);
});

test('an answer without its call is an entry of its own', () => {
  expect(fold([event('tool', { call: 'c9', name: null, output: 'late' })])).toMatchObject([
    { kind: 'call', name: 'answer', output: 'late' },
  ]);
});

test('attempts are not mixed', () => {
  expect(fold([event('log', { text: 'a' }), event('log', { text: 'b', attempt: 2 })])).toHaveLength(2);
});

test.each([
  [{ command: 'npm test\nmore' }, 'npm test'],
  [{ file_path: 'a.ts', limit: 3 }, 'a.ts'],
  [{ command: ['git', 'diff'] }, 'git diff'],
  [{ odd: 1 }, '{"odd":1}'],
  [null, ''],
  [undefined, ''],
])('%j is summarised as %s', (input, summary) => {
  expect(callSummary(input)).toBe(summary);
});

test('the lines of a log that repeat a call and its answer are left out, and others of tools stay', () => {
  const entries = fold([
    event('log', { text: 'npm ci', origin: 'tool' }),
    event('log', { text: '→ Bash: npm test', origin: 'tool' }),
    event('tool', { call: 'c1', name: 'Bash', input: { command: 'npm test' } }),
    event('log', { text: '← 3 passed', origin: 'tool' }),
    event('tool', { call: 'c1', name: null, output: '3 passed' }),
    event('log', { text: '→ I go on', origin: 'agent' }),
  ]);
  expect(entries.map((entry) => (entry.kind === 'text' ? entry.lines : entry.kind))).toEqual([
    ['npm ci'],
    'call',
    ['→ I go on'],
  ]);
});

test('the whole text of a call is its input, and of an answer its output', () => {
  const calls = [
    { name: 'Bash', input: { command: 'npm test' } },
    { name: 'exec', input: 'ls' },
    { name: 'Stop', input: undefined },
    { name: null, output: 'a\nb' },
  ];
  expect(calls.map((call) => wholeText(event('tool', { call: 'c1', ...call })))).toEqual([
    '{"command":"npm test"}',
    'ls',
    '',
    'a\nb',
  ]);
});

test('lines of different writers are entries of their own', () => {
  const entries = fold([event('log', { text: 'a', origin: 'engine' }), event('log', { text: 'b', origin: 'agent' })]);
  expect(entries).toMatchObject([
    { origin: 'engine', lines: ['a'] },
    { origin: 'agent', lines: ['b'] },
  ]);
});

test('an entry differs from its earlier fold only if it has grown', () => {
  const [call, answer] = [
    event('tool', { call: 'c1', name: 'Bash', input: {} }),
    event('tool', { call: 'c1', name: null, output: 'x' }),
  ];
  const [before, after, again] = [fold([call])[0], fold([call, answer])[0], fold([call, answer])[0]];
  if (!before || !after || !again) throw new Error('a fold has no entry');
  expect([isSameEntry(before, after), isSameEntry(after, again)]).toEqual([false, true]);
  const [text, more] = [event('log', { text: 'a' }), event('log', { text: 'b' })];
  const [short, long] = [fold([text])[0], fold([text, more])[0]];
  if (!short || !long) throw new Error('a fold has no entry');
  expect(isSameEntry(short, long)).toBe(false);
});

function usage(inputTokens: number, costUsd: number | null): JobEvent {
  return event('usage', {
    usage: {
      inputTokens,
      outputTokens: 0,
      reasoningTokens: 0,
      cacheReadTokens: 0,
      cacheWriteTokens: 0,
      costUsd,
      costKind: 'billed',
      turns: 1,
      seconds: 1,
    },
  });
}

test("usage until the answer of a call is the call's, and later usage that of the next one", () => {
  seq = 0;
  const [read, bash] = fold([
    usage(1000, 0.01),
    event('tool', { call: 'c1', name: 'Read', input: {} }),
    usage(3100, 0.03),
    event('tool', { call: 'c1', name: null, output: 'x' }),
    usage(3500, 0.04),
    event('tool', { call: 'c2', name: 'Bash', input: {} }),
    usage(3400, 0.04),
  ]);
  expect(read).toMatchObject({ tokens: 3100, costUsd: expect.closeTo(0.03) as number });
  expect(bash).toMatchObject({ tokens: 400, costUsd: expect.closeTo(0.01) as number });
});

test("usage before the events that are shown is no call's, and an unknown cost stays unknown", () => {
  seq = 100;
  const entries = fold([
    event('tool', { call: 'c1', name: 'Read', input: {} }),
    usage(90_000, null),
    usage(91_000, null),
  ]);
  expect(entries).toMatchObject([{ tokens: 1000, costUsd: null }]);
});

test('a call that has used more is drawn again', () => {
  seq = 0;
  const call = event('tool', { call: 'c1', name: 'Read', input: {} });
  const [before, after] = [fold([call])[0], fold([call, usage(10, null)])[0]];
  expect(before && after && isSameEntry(before, after)).toBe(false);
});

test('text is found in lines, arguments, outputs and errors, whatever its case', () => {
  seq = 0;
  const entries = fold([
    event('log', { text: 'A \u001b[31mneedle\u001b[0m in a line' }),
    event('tool', { call: 'c1', name: 'Bash', input: { command: 'grep needle' } }),
    event('tool', { call: 'c2', name: null, output: 'NEEDLE' }),
    event('error', { code: 'agent_error', message: 'no Needle' }),
    event('status', { state: 'running' }),
  ]);
  expect(entries.map((entry) => contains(entry, 'needle'))).toEqual([true, true, true, true, false]);
  expect(entries.map((entry) => contains(entry, '[31m'))).toEqual([false, false, false, false, false]);
});
