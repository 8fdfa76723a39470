import { QueryClient } from '@tanstack/react-query';
import { expect, test } from 'vitest';

import { isStale, keysOf, patchJobs, refresh, removeShown } from './changes';
import { jobQuery, type JobDetail, type JobItem } from './jobs';

const item = (id: string, fields: Partial<JobItem> = {}): JobItem =>
  ({ id, status: 'active', chainId: null, ...fields }) as JobItem;

test('changed jobs make counts and their own details stale, and the details of waiting jobs', () => {
  const stale = keysOf({ jobs: [item('ir-1')], gone: ['ir-2'], kinds: [], counts: {} });
  expect(isStale(['facets', {}], undefined, stale)).toBe(true);
  expect(['ir-1', 'ir-2', 'ir-3'].map((id) => isStale(['job', id], { status: 'active' }, stale))).toEqual([
    true,
    true,
    false,
  ]);
  expect(isStale(['job', 'ir-3'], { status: 'waiting' }, stale)).toBe(true);
  expect(['ir-1', 'ir-3'].map((id) => isStale(['report', id], {}, stale))).toEqual([true, false]);
  expect(isStale(['agents'], undefined, stale)).toBe(false);
});

test('changed resources make their lists stale', () => {
  const stale = keysOf({ jobs: [], gone: [], kinds: ['ai-models', 'unknown'], counts: {} });
  expect(
    [['ai-models'], ['queue'], ['facets', {}], ['job', 'ir-1']].map((key) =>
      isStale(key, { status: 'waiting' }, stale),
    ),
  ).toEqual([true, true, false, false]);
});

test.each([{ reset: true }, { many: true }])('%o makes all stale that the feed covers, and nothing else', (frame) => {
  const stale = keysOf(frame);
  expect([['facets', {}], ['job', 'ir-1'], ['sources']].every((key) => isStale(key, undefined, stale))).toBe(true);
  expect([['session'], ['patch', 'ir-1'], ['activity', 'ir-1']].some((key) => isStale(key, undefined, stale))).toBe(
    false,
  );
});

test('changed jobs appear in the detail without its own fields being lost, and in the chain', () => {
  const queries = new QueryClient();
  queries.setQueryData(jobQuery('ir-1').queryKey, { ...item('ir-1'), logs: ['x'] } as JobDetail);
  queries.setQueryData(['chain', 'c'], { jobs: [item('ir-1', { chainId: 'c' }), item('ir-2')], next: null });
  patchJobs(queries, { jobs: [item('ir-1', { status: 'failed', chainId: 'c' }), item('ir-9')] });
  expect(queries.getQueryData(jobQuery('ir-1').queryKey)).toMatchObject({ status: 'failed', logs: ['x'] });
  expect(queries.getQueryData<{ jobs: JobItem[] }>(['chain', 'c'])?.jobs.map((job) => job.status)).toEqual([
    'failed',
    'active',
  ]);
  expect(queries.getQueryData(jobQuery('ir-9').queryKey)).toBeUndefined();
});

test('the usage of a running attempt stays until the job has another status', () => {
  const queries = new QueryClient();
  const usage = (costUsd: number) => ({ costUsd }) as JobItem['usage'];
  const key = jobQuery('ir-1').queryKey;
  queries.setQueryData(key, item('ir-1', { usage: usage(0.42) }) as JobDetail);
  patchJobs(queries, { jobs: [item('ir-1', { usage: usage(0) })] });
  expect(queries.getQueryData(key)?.usage.costUsd).toBe(0.42);
  patchJobs(queries, { jobs: [item('ir-1', { status: 'completed', usage: usage(0.5) })] });
  expect(queries.getQueryData(key)?.usage.costUsd).toBe(0.5);
});

test('the queries of a removed resource are not read again, unless it could not be removed', async () => {
  const queries = new QueryClient();
  for (const key of [
    ['agent', 'a'],
    ['agent', 'a', 'instructions'],
    ['agent', 'b'],
    ['agent', 'c'],
  ])
    queries.setQueryData(key, {});
  const failed = new Error('refused');
  await removeShown(queries, ['agent', 'a'], () => Promise.resolve());
  await expect(removeShown(queries, ['agent', 'b'], () => Promise.reject(failed))).rejects.toBe(failed);

  refresh(queries, keysOf({ jobs: [], gone: [], kinds: ['agents'], counts: {} }));

  const all = queries.getQueryCache().getAll();
  const invalidated = all.filter(({ state }) => state.isInvalidated).map(({ queryKey }) => queryKey[1]);
  expect(invalidated).toEqual(['b', 'c']);
});
