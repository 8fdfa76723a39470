import { expect, test } from 'vitest';

import type { Agent, Trigger } from '../../api/agents';
import { EMPTY_TRIGGER, filterText, filterValue, triggerBody, triggerDraft, withTrigger } from './trigger-draft';
import { conditionInWords, eventsInWords, filterInWords, isInstructionName } from './words';

const trigger: Trigger = {
  source: 'github',
  events: ['issues.labeled', 'issues.*'],
  instruction: 'implement-issue',
  config: { provider: 'claude', maxTurns: 5, network: 'none', isolation: 'vm', env: { CI: '1' } },
  enabled: true,
  filters: { 'label.name': ['ai', 'ai-*'], 'issue.number': 3, 'issue.locked': false, 'issue.id': '3' },
  next: { agentTriggerName: 'ai-reviewer', condition: 'on-success', failurePolicy: 'retry', allowCycles: false },
  concurrency: { key: '{{ repo }}#{{ number }}', onNew: 'replaceWaiting', debounceSeconds: 30 },
  ciLoop: { attemptsPerPullRequest: 2, label: '' },
  report: { pullRequest: { followUps: false } },
};

test('a form that is not changed stands for the same trigger', () => {
  const { enabled, ...rest } = trigger;
  expect(enabled).toBe(true);
  expect(triggerBody(triggerDraft(trigger))).toEqual({ body: rest, problems: {} });
});

test('a trigger without a concurrency key has no concurrency', () => {
  const draft = triggerDraft({ ...trigger, concurrency: null });
  expect([draft.concurrencyKey, triggerBody(draft).body['concurrency']]).toEqual(['', null]);
  expect(triggerBody({ ...draft, concurrencyKey: ' one ', debounceSeconds: 'x' })).toMatchObject({
    body: { concurrency: { key: 'one', onNew: 'supersede', debounceSeconds: 0 } },
    problems: { debounceSeconds: 'must be a number' },
  });
});

test('a trigger repairs failed checks only if it is told to', () => {
  const draft = triggerDraft(EMPTY_TRIGGER);
  expect([draft.ciLoop, triggerBody(draft).body['ciLoop']]).toEqual([false, null]);
  expect(triggerBody({ ...draft, ciLoop: true }).body['ciLoop']).toEqual({
    attemptsPerPullRequest: 3,
    label: 'needs-human',
  });
  expect(triggerBody({ ...draft, ciLoop: true, ciAttempts: '1.5' }).problems).toMatchObject({
    ciAttempts: 'must be a whole number',
  });
});

test('the report of a trigger is a JSON object, or not set', () => {
  const draft = triggerDraft(EMPTY_TRIGGER);
  expect([draft.report, triggerBody(draft).body['report']]).toEqual(['', null]);
  expect(triggerBody({ ...draft, report: '{"policy": {"maxPullRequests": 0}}' }).body['report']).toEqual({
    policy: { maxPullRequests: 0 },
  });
  expect(triggerBody({ ...draft, report: '[]' }).problems.report).toBe('must be a JSON object');
});

test('an instruction that is no name is the text of the task', () => {
  const draft = triggerDraft({ ...trigger, instruction: 'Implement it.\nThen test it.' });
  expect([draft.instruction, draft.instructionText]).toEqual(['', 'Implement it.\nThen test it.']);
  expect(triggerBody(draft).body['instruction']).toBe('Implement it.\nThen test it.');
  expect(isInstructionName('a.b-1')).toBe(true);
});

test.each([
  ['ai-*', 'ai-*'],
  ['3', 3],
  ['"3"', '3'],
  ['["a", "b"]', ['a', 'b']],
  ['true', true],
  [' spaced ', 'spaced'],
])('the text %s stands for the value %j', (text, value) => {
  expect(filterValue(text)).toEqual(value);
  expect(filterValue(filterText(value))).toEqual(value);
});

test('a trigger needs an event, and each filter its own path', () => {
  const draft = {
    ...triggerDraft(EMPTY_TRIGGER),
    filters: [
      { path: 'a', value: '1' },
      { path: 'a ', value: '2' },
      { path: '', value: '' },
    ],
  };
  expect(triggerBody(draft).problems).toEqual({
    events: 'is required',
    filters: expect.stringContaining('twice') as string,
  });
});

test('a changed trigger keeps its place, and a removed one is added again', () => {
  const agent = { eventTriggers: [trigger, { ...trigger, source: 'other' }] } as Agent;
  expect(withTrigger(agent, 1, { source: 'x' }).map((each) => each.source)).toEqual(['github', 'x']);
  expect(withTrigger(agent, 5, { source: 'x', events: ['e'] })[2]).toMatchObject({ source: 'x', enabled: true });
});

test('triggers are readable', () => {
  expect(eventsInWords(trigger)).toBe('issues.labeled or issues.* from github');
  expect(filterInWords('label.name', ['a', 'b', 'c'])).toBe('label.name is a, b or c');
  expect(filterInWords('n', 3)).toBe('n is 3');
  expect(trigger.next && conditionInWords(trigger.next)).toBe('on success, with one more attempt after a failure');
});
