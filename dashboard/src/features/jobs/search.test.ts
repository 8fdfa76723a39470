import { expect, test } from 'vitest';

import { parseSearch, stringifySearch } from '../../lib/search';
import { filterOf, hasFilters, isShortQueue, validateJobsSearch } from './search';

test('all filters survive the way through the URL', () => {
  const search = {
    status: ['active', 'failed'],
    q: 'a & b',
    model: 'opus',
    agent: 'ai-reviewer',
    repo: 'o/r',
    code: 'timeout',
    window: '24h',
    ended: '7d',
    type: 'triage',
    source: 'cli',
    provider: 'codex',
    chainId: 'ch-1',
    from: '2030-01-01T00:00:00Z',
    to: '2030-01-02T00:00:00Z',
    endedFrom: '2030-01-03T00:00:00Z',
    endedTo: '2030-01-04T00:00:00Z',
    sort: 'oldest',
    job: 'ir-1',
    bulk: 'bulk-action-1',
  } as const;
  expect(validateJobsSearch(parseSearch(stringifySearch(search)))).toEqual(search);
});

test('nonsense in the URL is ignored', () => {
  expect(validateJobsSearch(parseSearch('?status=lost&window=2y&sort=up&q=&page=3'))).toEqual({});
});

test('the filter has the names of the API', () => {
  const now = Date.UTC(2030, 0, 2);
  expect(filterOf({ agent: 'ai-reviewer', code: 'timeout', window: '24h' }, now)).toEqual({
    agentRole: 'ai-reviewer',
    failedCode: 'timeout',
    from: '2030-01-01T00:00:00.000Z',
  });
});

test('times are those of creation or of the end, and an exact one wins over a window', () => {
  const now = Date.UTC(2030, 0, 2);
  expect(filterOf({ ended: '24h', type: 'triage', chainId: 'ch-1' }, now)).toEqual({
    endedFrom: '2030-01-01T00:00:00.000Z',
    type: 'triage',
    chainId: 'ch-1',
  });
  expect(filterOf({ window: '24h', from: '2029-01-01T00:00:00Z' }, now)).toEqual({ from: '2029-01-01T00:00:00Z' });
});

test('an order, an open job or an action is no filter', () => {
  expect(hasFilters({ sort: 'oldest', job: 'ir-1', bulk: 'bulk-action-1' })).toBe(false);
  expect(hasFilters({ q: 'x' })).toBe(true);
});

test('only the waiting jobs of one model are listed as a queue, up to 100 of them', () => {
  const queue = { status: ['waiting' as const], model: 'opus' };
  expect(isShortQueue(queue, 100)).toBe(true);
  expect([
    isShortQueue(queue, 101),
    isShortQueue(queue, undefined),
    isShortQueue({ ...queue, sort: 'oldest' }, 2),
    isShortQueue({ status: ['waiting'] }, 2),
    isShortQueue({ status: ['waiting', 'active'], model: 'opus' }, 2),
    isShortQueue({ model: 'opus' }, 2),
  ]).toEqual([false, false, false, false, false, false]);
});
