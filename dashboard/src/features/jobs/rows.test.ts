import { expect, test } from 'vitest';

import type { JobItem } from '../../api/jobs';
import {
  matches,
  MOST_NEWER,
  NO_ROWS,
  withChanges,
  withFeed,
  withFirstPage,
  withNewerHeld,
  withNewerShown,
  withNewest,
  withPage,
} from './rows';

function job(number: number, fields: Partial<JobItem> = {}): JobItem {
  const createdAt = new Date(Date.UTC(2030, 0, 1) + number * 1000).toISOString();
  return { id: `ir-${number}`, createdAt, status: 'active', ...fields } as JobItem;
}

const ids = (jobs: readonly JobItem[]) => jobs.map((each) => each.id);
const rows = withPage(NO_ROWS, { jobs: [job(3), job(2)], next: 'c' });

test('pages follow each other without repeats', () => {
  const next = withPage(rows, { jobs: [job(2, { status: 'failed' }), job(1)], next: null });
  expect(ids(next.jobs)).toEqual(['ir-3', 'ir-2', 'ir-1']);
  expect(next.jobs[1]?.status).toBe('failed');
  expect(next.next).toBeNull();
});

test('new jobs wait, and shift no row that is being read', () => {
  const merged = withNewest(rows, { jobs: [job(5), job(4), job(3, { status: 'completed' }), job(2)], next: 'x' });
  expect(ids(merged.jobs)).toEqual(['ir-3', 'ir-2']);
  expect(merged.jobs[0]?.status).toBe('completed');
  expect(ids(merged.newer)).toEqual(['ir-5', 'ir-4']);
  expect(merged.next).toBe('c');
  expect(ids(withNewerShown(merged).jobs)).toEqual(['ir-5', 'ir-4', 'ir-3', 'ir-2']);
});

test('jobs that a fresh first page lacks leave the list, and those beyond it stay', () => {
  const fresh = withFirstPage(rows, { jobs: [job(5), job(3)], next: 'd' });
  expect([ids(fresh.jobs), ids(fresh.newer)]).toEqual([['ir-3', 'ir-2'], ['ir-5']]);
  expect(ids(withFirstPage(rows, { jobs: [job(4), job(2)], next: 'd' }).jobs)).toEqual(['ir-2']);
  expect(ids(withFirstPage(rows, { jobs: [], next: null }).jobs)).toEqual([]);
});

test('a merge that brings nothing keeps the same list', () => {
  expect(withNewest(rows, { jobs: [], next: null }).jobs).toBe(rows.jobs);
});

test('an older job that has come to match joins the list in order', () => {
  const merged = withNewest(withPage(NO_ROWS, { jobs: [job(5), job(1)], next: null }), {
    jobs: [job(5), job(3), job(1)],
    next: null,
  });
  expect(ids(merged.jobs)).toEqual(['ir-5', 'ir-3', 'ir-1']);
  expect(merged.newer).toEqual([]);
});

test('the first jobs of an empty list wait too, and jobs that match no longer disappear', () => {
  expect(ids(withNewest({ ...NO_ROWS, next: null }, { jobs: [job(1)], next: null }).newer)).toEqual(['ir-1']);
  expect(ids(withChanges(rows, [], new Set(['ir-3'])).jobs)).toEqual(['ir-2']);
});

test('changes of the feed appear in place, and new jobs wait above the list', () => {
  const next = withFeed(rows, [job(2, { status: 'completed' }), job(4), job(5)], ['ir-3'], {}, 'newest');
  expect(ids(next.jobs)).toEqual(['ir-2']);
  expect(next.jobs[0]?.status).toBe('completed');
  expect(ids(next.newer)).toEqual(['ir-5', 'ir-4']);
  expect(next.next).toBe('c');
});

test('jobs that match no longer leave the list, and those that have come to match join it', () => {
  const failed = withPage(NO_ROWS, { jobs: [9, 5, 1].map((number) => job(number, { status: 'failed' })), next: null });
  const next = withFeed(failed, [job(5), job(3, { status: 'failed' }), job(2)], [], { status: ['failed'] }, 'newest');
  expect(ids(next.jobs)).toEqual(['ir-9', 'ir-3', 'ir-1']);
});

test('jobs of which only the engine knows whether they have the text of a search do not join the list', () => {
  const oldest = withPage(NO_ROWS, { jobs: [job(1), job(3)], next: 'c' });
  expect(
    ids(withFeed(oldest, [job(2), job(3, { status: 'failed' })], ['ir-1'], { q: 'alpha' }, 'oldest').jobs),
  ).toEqual(['ir-3']);
  expect(withFeed(rows, [job(4)], [], { q: 'alpha' }, 'newest')).toEqual(rows);
});

test('jobs beyond the loaded rows are left to later pages', () => {
  expect(ids(withFeed(rows, [job(1)], [], {}, 'newest').jobs)).toEqual(['ir-3', 'ir-2']);
  const oldest = withPage(NO_ROWS, { jobs: [job(1), job(3)], next: 'c' });
  expect(ids(withFeed(oldest, [job(2), job(9)], [], {}, 'oldest').jobs)).toEqual(['ir-1', 'ir-2', 'ir-3']);
  expect(ids(withFeed({ ...oldest, next: null }, [job(9)], [], {}, 'oldest').jobs)).toEqual(['ir-1', 'ir-3', 'ir-9']);
});

test('a job matches if all fields of the filter do', () => {
  const each = job(10, { model: 'opus', repo: 'o/r', name: 'task' });
  expect(
    matches(each, { status: ['active'], model: 'opus', repo: 'o/r', type: 'task', from: '2030-01-01T00:00:10.000Z' }),
  ).toBe(true);
  for (const filter of [
    { status: ['failed' as const] },
    { model: 'haiku' },
    { agentRole: 'x' },
    { to: '2030-01-01T00:00:10Z' },
    { from: '2030-01-01T00:00:11Z' },
  ]) {
    expect(matches(each, filter)).toBe(false);
  }
});

test('a time of the end matches jobs that have ended', () => {
  const ended = job(10, { status: 'failed', finishedAt: '2030-01-01T00:01:00Z' });
  expect(matches(ended, { endedFrom: '2030-01-01T00:01:00Z', endedTo: '2030-01-01T00:01:01Z' })).toBe(true);
  expect(matches(ended, { endedTo: '2030-01-01T00:01:00Z' })).toBe(false);
  expect(matches(job(10), { endedFrom: '2020-01-01T00:00:00Z' })).toBe(false);
});

test('a list that nobody reads holds a limited number of newer jobs', () => {
  let next = rows;
  for (let number = 4; number < 2_000; number += 50) {
    next = withFeed(
      next,
      Array.from({ length: 50 }, (_, index) => job(number + index)),
      [],
      {},
      'newest',
    );
  }
  expect([next.newer.length, next.newer[0]?.id, ids(next.jobs)]).toEqual([MOST_NEWER, 'ir-2003', ['ir-3', 'ir-2']]);
});

test('new jobs wait above a list that was read again, and shift no row that is being read', () => {
  const again = withPage(NO_ROWS, { jobs: [job(5), job(4), job(3), job(2)], next: 'd' });
  const held = withNewerHeld(again, job(3));
  expect([ids(held.newer), ids(held.jobs), held.next]).toEqual([['ir-5', 'ir-4'], ['ir-3', 'ir-2'], 'd']);
  expect(ids(withNewerHeld(again, undefined).jobs)).toEqual(['ir-5', 'ir-4', 'ir-3', 'ir-2']);
});
