import { expect, test } from 'vitest';

import type { JobDetail } from '../../api/jobs';
import { clock } from '../../lib/format';
import {
  cancelEffect,
  canPublish,
  NO_CHANGES,
  retryEffect,
  whyNoBundle,
  whyNoPatch,
  whyNoRetry,
  whyWaiting,
  whyNothing,
} from './sentences';

const NOW = Date.UTC(2030, 0, 1);
const job = (fields: object): JobDetail =>
  ({
    status: 'failed',
    createdAt: new Date(NOW).toISOString(),
    workspaceSetup: null,
    session: null,
    retryRefused: null,
    notBefore: null,
    failedReason: null,
    provider: 'claude',
    model: 'opus',
    priority: 2,
    ...fields,
  }) as unknown as JobDetail;

test('a failed job can be retried, unless the engine refuses it', () => {
  expect(whyNoRetry(job({}))).toBeUndefined();
  expect(whyNoRetry(job({ status: 'completed' }))).toContain('Only a failed job');
  expect(whyNoRetry(job({ retryRefused: 'its token has expired' }))).toBe(
    'It cannot be retried: its token has expired.',
  );
});

test('the report of an ended job can be published again', () => {
  const report = { target: { repository: 'octo/demo' } };
  expect(canPublish(job({ report }))).toBe(true);
  expect(canPublish(job({ report, status: 'active' }))).toBe(false);
  expect(canPublish(job({ report: null }))).toBe(false);
  expect(canPublish(job({ report: { ...report, mode: 'preview' } }))).toBe(false);
});

test('a retry resumes a session, or starts over', () => {
  expect(retryEffect(job({ session: { provider: 'claude', id: 'x', attempt: 1 } }))).toContain('resumes');
  expect(retryEffect(job({}))).toContain('starts over');
});

const waiting = (fields: object, more: object = {}) =>
  whyWaiting(
    job({
      status: 'waiting',
      waiting: {
        reason: 'slots_busy',
        position: 1,
        slots: 4,
        active: 4,
        holders: [],
        pausedUntil: null,
        waitsFor: null,
        debouncedUntil: null,
        startsAfter: null,
        estimateSeconds: null,
        ...fields,
      },
      ...more,
    }),
    NOW,
  );
const PAUSE = '2030-01-01T14:32:00Z';
const CLOCK = clock(new Date(PAUSE));

test.each([
  [{}, 'Next for claude/opus: 4 of 4 slots are busy.'],
  [{ position: 2, estimateSeconds: 372 }, '2nd in line for claude/opus: 4 of 4 slots are busy. Starts in about 6 min.'],
  [
    { position: 13, slots: 1, active: 1, estimateSeconds: 9_000 },
    '13th in line for claude/opus: 1 of 1 slot is busy. Starts in about 3 h.',
  ],
  [
    { reason: 'paused', pausedUntil: PAUSE, estimateSeconds: 20 },
    `claude/opus is paused until ${CLOCK} at the request of its provider. Next. Starts within a minute.`,
  ],
  [{ reason: 'paused', position: 3 }, 'claude/opus is paused at the request of its provider. 3rd in line.'],
  [
    { reason: 'no_slots', slots: 0, active: 0 },
    'claude/opus has no slots, so none of its jobs start. Give the model at least one slot.',
  ],
  [{ reason: 'unresolved' }, 'The controller has not checked this job yet.'],
  [{ reason: 'starting' }, 'Starts now.'],
  [{ reason: 'concurrency', waitsFor: 'ir-1' }, 'An older job with the same concurrency key must end first.'],
  [{ reason: 'notBefore', startsAfter: PAUSE }, `Starts at ${CLOCK} at the earliest.`],
  [{ reason: 'debounce', debouncedUntil: PAUSE }, `Waits until ${CLOCK} for newer jobs with the same concurrency key.`],
  [
    { reason: 'no_controller' },
    'No controller is running, so no job starts. Start one: it drives the jobs of the cluster.',
  ],
])('a job that waits with %o says why', (fields, sentence) => {
  expect(waiting(fields)).toBe(sentence);
});

test('a requeued job names the time before which it does not start, and the reason', () => {
  const notBefore = new Date(NOW + 65_000).toISOString();
  expect(waiting({ reason: 'requeued' }, { notBefore, failedReason: 'rate limit' })).toBe(
    'Requeued; starts in 1m05s at the earliest: rate limit',
  );
  expect(waiting({ reason: 'requeued' }, { notBefore })).toBe('Requeued; starts in 1m05s at the earliest.');
});

test('a job that has never started says so, and a waiting one what will appear', () => {
  expect(whyNothing({ status: 'waiting' }, 'log')).toBe('Its log appears here as soon as it runs.');
  expect(whyNothing({ status: 'cancelled' }, 'activity')).toBe(
    'It was cancelled before it started, so it has no activity.',
  );
  expect(whyNothing({ status: 'failed' }, 'log')).toBe('It ended before it started, so it has no log.');
});

test.each([
  ['waiting', null, 'The job does not start.'],
  ['active', null, 'The agent is stopped with all its processes. Its changes so far stay available.'],
  ['active', '2030-01-01T00:00:00Z', 'The job is being cancelled already.'],
  ['cancelled', '2030-01-01T00:00:00Z', 'The job has ended already.'],
] as const)('to cancel a job that is %s, requested at %s, is explained', (status, cancelRequestedAt, sentence) => {
  expect(cancelEffect({ status, cancelRequestedAt })).toBe(sentence);
});

const COMMIT = '5f2b0c';
const outputs = (fields: object, logs: string[] = []) =>
  job({ logs, outputs: { commit: COMMIT, commits: [COMMIT], filesChanged: 1, bundleBytes: null, ...fields } });
const NO_BUNDLE = '[no bundle of the commits is stored: a secret is in the file a.txt]';
const NO_PATCH = '[the changes in the workspace cannot be computed: the patch is too large]';

test('commits without a bundle have a reason', () => {
  expect(whyNoBundle(outputs({ bundleBytes: 9 }))).toBeUndefined();
  expect(whyNoBundle(outputs({ commit: null, commits: [] }))).toBeUndefined();
  expect(whyNoBundle(outputs({}))).toBe('No bundle of the commits is stored.');
  expect(whyNoBundle(outputs({}, ['done', NO_BUNDLE]))).toBe(
    'No bundle of the commits is stored: a secret is in the file a.txt.',
  );
});

test.each([
  [{ commit: null, filesChanged: null }, [], NO_CHANGES],
  [{ commit: null, filesChanged: 0 }, [], NO_CHANGES],
  [{ filesChanged: 2 }, [], 'The attempt changed 2 files, but its output was deleted.'],
  [{ filesChanged: 0, bundleBytes: 9 }, [], 'The attempt made commits that change no file together.'],
  [
    { filesChanged: 0 },
    [NO_BUNDLE],
    'The attempt made commits that change no file together. No bundle of the commits is stored: a secret is in the file a.txt.',
  ],
  [
    { filesChanged: null },
    [NO_PATCH],
    'The attempt made commits, but no patch of them is stored: the patch is too large. No bundle of the commits is stored.',
  ],
])('a missing patch has a reason: %o', (fields, logs, reason) => {
  expect(whyNoPatch(outputs(fields, logs))).toBe(reason);
});
