import { expect, test } from 'vitest';

import type { QueuePlace } from '../api/jobs';
import { clock } from '../lib/format';
import { inQueueOrder, waitingNote } from './waiting';

const TIME = '2030-01-01T14:32:00Z';
const CLOCK = clock(TIME);

test.each<[Partial<QueuePlace>, string | null, string]>([
  [{}, null, '2nd in line, 4/4 busy'],
  [{ position: 1, slots: 1, active: 1 }, null, 'Next in line, 1/1 busy'],
  [{ reason: 'paused', pausedUntil: TIME }, null, `opus is paused until ${CLOCK}`],
  [{ reason: 'paused' }, null, 'opus is paused'],
  [{ reason: 'requeued' }, TIME, `Starts at ${CLOCK} at the earliest`],
  [{ reason: 'requeued' }, null, 'Requeued, 2nd in line'],
  [{ reason: 'no_slots', slots: 0, active: 0 }, null, 'opus has no slots'],
  [{ reason: 'unresolved' }, null, 'The controller has not checked it yet'],
  [{ reason: 'starting' }, null, 'Starts now'],
  [{ reason: 'concurrency', waitsFor: 'ir-1' }, null, 'Waits for ir-1 of its key'],
  [{ reason: 'debounce', debouncedUntil: TIME }, null, `Starts at ${CLOCK} at the earliest`],
  [{ reason: 'notBefore', startsAfter: TIME }, TIME, `Starts at ${CLOCK} at the earliest`],
  [{ reason: 'no_controller' }, null, 'No controller is running'],
])('a job in a list that waits with %o says why', (fields, notBefore, note) => {
  const place: QueuePlace = {
    reason: 'slots_busy',
    position: 2,
    slots: 4,
    active: 4,
    pausedUntil: null,
    waitsFor: null,
    debouncedUntil: null,
    startsAfter: null,
    estimateSeconds: null,
    ...fields,
  };
  expect(waitingNote({ model: 'opus', notBefore }, place)).toBe(note);
});

test('jobs stand in the order of their queue, and those without a place behind', () => {
  const jobs = ['unknown', 'third', 'first', 'new', 'other first'].map((id) => ({ id }));
  const places = { third: { position: 3 }, first: { position: 1 }, 'other first': { position: 1 } };
  expect(inQueueOrder(jobs, places).map(({ id }) => id)).toEqual(['first', 'other first', 'third', 'unknown', 'new']);
});
