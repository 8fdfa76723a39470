import { expect, test } from 'vitest';

import type { Trigger } from '../../api/agents';
import type { AgentVerdict, ThreadRequest, TriggerVerdict } from '../../api/incoming-events';
import {
  deliveryInUrl,
  draftOf,
  EMPTY_TEST,
  eventSourceOf,
  EXAMPLES,
  firstTest,
  payloadText,
  testBody,
} from './test-draft';
import { EMPTY_TRIGGER } from './trigger-draft';
import { outcomeInWords, verdictInWords } from './verdict-words';

const event = { source: 'ci', event: 'build.failed' };
const trigger: Trigger = { ...EMPTY_TRIGGER, events: ['issues.labeled', 'issues.*'] };
const say = (mismatch: TriggerVerdict['mismatch'], failedFilter: TriggerVerdict['failedFilter'] = null) =>
  verdictInWords({ matches: mismatch === null, mismatch, failedFilter }, trigger, { name: 'ai-developer' }, event);

test.each([
  [null, 'Matches.'],
  ['source', 'Does not match: it takes events from github, and this one is from ci.'],
  ['event', 'Does not match: it takes issues.labeled or issues.*, and this event is build.failed.'],
  ['trigger_disabled', 'Would match, but the trigger is off.'],
  ['agent_disabled', 'Would match, but ai-developer is off.'],
  ['earlier_trigger', 'Would match, but an earlier trigger starts the agent. An event starts an agent once.'],
  ['filter', 'Does not match: a filter does not hold.'],
] as const)('the mismatch %s reads as a sentence', (mismatch, words) => {
  expect(say(mismatch)).toBe(words);
});

test.each([
  [
    { path: 'label.name', wanted: ['ai', 'ai-*'], found: ['bug'] },
    'Does not match: label.name is bug; the filter wants ai or ai-*.',
  ],
  [
    { path: 'labels.name', wanted: 'ai', found: ['bug', 'docs'] },
    'Does not match: labels.name is bug and docs; the filter wants ai.',
  ],
  [
    { path: 'label.name', wanted: 'ai', found: [] },
    'Does not match: the event has no label.name; the filter wants ai.',
  ],
  [{ path: 'number', wanted: 3, found: ['3'] }, 'Does not match: number is "3"; the filter wants 3.'],
  [{ path: 'draft', wanted: false, found: [null] }, 'Does not match: draft is null; the filter wants false.'],
  [{ path: 'a', wanted: 'x', found: [''] }, 'Does not match: a is ""; the filter wants x.'],
  [{ path: 'a', wanted: [], found: [{ b: 1 }] }, 'Does not match: a is {"b":1}; no value can match.'],
  [
    { path: 'a', wanted: 'x', found: ['y'.repeat(121)] },
    `Does not match: a is ${'y'.repeat(120)}…; the filter wants x.`,
  ],
])('a filter that fails names the values: %j', (failedFilter, words) => {
  expect(say('filter', failedFilter)).toBe(words);
});

const matching: TriggerVerdict = { matches: true, mismatch: null, failedFilter: null };
const failing: TriggerVerdict = { matches: false, mismatch: 'source', failedFilter: null };
const verdict = (fields: Partial<AgentVerdict>): AgentVerdict => ({
  agent: 'ai-developer',
  starts: false,
  triggers: [failing, matching],
  job: null,
  refused: null,
  ...fields,
});

const nothing = { ignored: null, requests: [] };

test('the outcome says whether the event starts the agent', () => {
  expect(outcomeInWords(verdict({ starts: true }), nothing, null)).toBe('The event starts this agent.');
  expect(outcomeInWords(verdict({ triggers: [failing] }), nothing, null)).toBe(
    'The event does not start this agent: no trigger matches.',
  );
  expect(outcomeInWords(verdict({ triggers: [] }), nothing, null)).toBe(
    'The event does not start this agent: it has no triggers.',
  );
  expect(outcomeInWords(verdict({}), nothing, null)).toBe(
    'The event does not start this agent: an older agent has the same trigger name.',
  );
});

test('the outcome names a refused job and an ignored event', () => {
  expect(outcomeInWords(verdict({ refused: 'there is no model `x`' }), nothing, null)).toBe(
    'The event would start this agent, but its job would be refused: there is no model `x`.',
  );
  expect(outcomeInWords(verdict({}), { ...nothing, ignored: 'an agent wrote it' }, 'main')).toBe(
    'main would ignore the event: an agent wrote it.',
  );
});

test('the outcome names what a job would fail with', () => {
  const job = { failure: 'no credentials are stored: `labrats secret set a KEY`' } as AgentVerdict['job'];
  expect(outcomeInWords(verdict({ starts: true, job }), nothing, null)).toBe(
    'The event starts this agent, but its job would fail: no credentials are stored: `labrats secret set a KEY`.',
  );
});

test('the outcome names a webhook source that chooses the agent', () => {
  expect(outcomeInWords(verdict({}), nothing, 'main')).toBe(
    'The event does not start this agent: a trigger matches, but main sends the events of the repository to another agent.',
  );
  expect(outcomeInWords(verdict({ starts: true, triggers: [failing] }), nothing, 'main')).toBe(
    'The event starts this agent: main sends all events of the repository to it.',
  );
});

const request: ThreadRequest = { action: 'retry', agent: null, model: null, answer: null };

test.each<[Partial<ThreadRequest>, string]>([
  [{}, 'The engine would retry the last job of the thread.'],
  [
    { agent: 'ai-developer', model: 'opus' },
    'The engine would run the last job of ai-developer of the thread again on opus.',
  ],
  [{ action: 'cancel' }, 'The engine would cancel the jobs of the thread.'],
  [{ action: 'run', agent: 'ai-developer', model: 'opus' }, 'The engine would start ai-developer on opus.'],
  [
    { action: 'help', answer: '`stop` is no command.' },
    'The engine would answer with a comment: `stop` is no command.',
  ],
  [{ action: 'reply' }, 'The engine would start a follow-up, if a job made the pull request.'],
  [
    { action: 'repair', agent: 'ci-fixer' },
    'The engine would let ci-fixer repair the checks, if a job made the pull request.',
  ],
])('the outcome names a request of the event: %j', (fields, words) => {
  expect(outcomeInWords(verdict({}), { ...nothing, requests: [{ ...request, ...fields }] }, 'main')).toBe(words);
});

test('a draft without a payload has an empty one', () => {
  expect(testBody({ ...EMPTY_TEST, event: ' push ' })).toEqual({
    body: { source: 'github', event: 'push', payload: {}, webhookSource: null },
    problems: {},
  });
});

test('problems of a draft stand at their fields, with line and column of the payload', () => {
  const { problems } = testBody({ ...EMPTY_TEST, source: '', payload: '\n{"a": x}' });
  expect(problems).toEqual({
    source: 'is required',
    event: 'is required',
    payload: expect.stringContaining('line 2 column 7') as string,
  });
  expect(testBody({ ...EMPTY_TEST, event: 'push', payload: '[]' }).problems).toEqual({
    payload: 'must be a JSON object',
  });
});

test.each(EXAMPLES)('the example $label is a valid draft', ({ event: name, payload }) => {
  expect(testBody({ ...EMPTY_TEST, event: name, payload: JSON.stringify(payload, null, 2) })).toEqual({
    body: { source: 'github', event: name, payload, webhookSource: null },
    problems: {},
  });
});

test('a recorded delivery is a valid draft, and the URL names it', () => {
  const payload = { action: 'labeled', label: { name: 'ai' } };
  const draft = draftOf({ id: 'd1', source: 'github', event: 'issues.labeled', payload }, 'main');
  expect(testBody(draft)).toEqual({
    body: { source: 'github', event: 'issues.labeled', payload, webhookSource: 'main' },
    problems: {},
  });
  expect(deliveryInUrl('main/018c1f5a')).toEqual({ source: 'main', id: '018c1f5a' });
  expect([undefined, '', 'main', 'main/', '/1', 'a/b/c'].map(deliveryInUrl)).toEqual(Array(6).fill(undefined));
});

test('a test begins with an event of the first trigger', () => {
  const first = (source: string, ...events: string[]) => firstTest([{ source, events }, trigger]);
  const [example] = EXAMPLES;
  expect(first('github', 'issues.*', 'issues.labeled')).toEqual({
    ...EMPTY_TEST,
    event: 'issues.labeled',
    payload: example && payloadText(example),
  });
  expect(first('shop', 'order.*', 'issues.labeled')).toEqual({
    ...EMPTY_TEST,
    source: 'shop',
    event: 'issues.labeled',
  });
  expect(first('shop', 'order.*')).toEqual({ ...EMPTY_TEST, source: 'shop' });
  expect(firstTest([])).toEqual(EMPTY_TEST);
});

test('a webhook source of GitHub sends events of github, and another one its own', () => {
  expect(eventSourceOf({ type: 'github', name: 'mine' })).toBe('github');
  expect(eventSourceOf({ type: 'generic', name: 'shop' })).toBe('shop');
});
