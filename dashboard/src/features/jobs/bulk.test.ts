import { expect, test } from 'vitest';

import type { JobFacets } from '../../api/jobs';
import { bulkFilter, bulkWords, concernedCount, outcomeWords } from './bulk';

const facets: JobFacets = {
  status: [
    { value: 'waiting', count: 3 },
    { value: 'active', count: 1 },
    { value: 'failed', count: 9 },
    { value: 'completed', count: 100 },
  ],
  failedCode: [],
  model: [],
  agentRole: [],
  repo: [],
  owner: [],
};

test('an action concerns the matching jobs that it can change', () => {
  expect(concernedCount('retry', {}, facets)).toBe(9);
  expect(concernedCount('cancel', { model: 'opus' }, facets)).toBe(4);
  expect(concernedCount('cancel', { status: ['active', 'failed'] }, facets)).toBe(1);
  expect(concernedCount('retry', { status: ['completed'] }, facets)).toBe(0);
  expect(concernedCount('retry', {}, undefined)).toBe(0);
});

test('the engine gets the other conditions too', () => {
  expect(bulkFilter('cancel', { status: ['active', 'failed'], repo: 'o/r', q: 'x' })).toEqual({
    status: ['active'],
    repo: 'o/r',
    q: 'x',
  });
  expect(bulkFilter('retry', {})).toEqual({ status: ['failed'] });
});

test('words name the number of jobs', () => {
  expect(bulkWords('retry', 1)).toBe('Retry 1 failed job');
  expect(bulkWords('cancel', 1200)).toBe('Cancel 1,200 waiting and running jobs');
  expect(outcomeWords({ action: 'cancel', jobs: 2, changed: 2 })).toBe('2 jobs cancelled.');
  expect(outcomeWords({ action: 'retry', jobs: 9, changed: 8 })).toBe(
    '8 of 9 jobs queued again. The others had been retried or deleted meanwhile.',
  );
});
