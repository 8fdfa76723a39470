import { expect, test } from 'vitest';

import { jobsOf } from './search';

test('the jobs of a series have its value and ended in its window', () => {
  expect(jobsOf('agentRole', 'ai-reviewer', '24h')).toEqual({ agent: 'ai-reviewer', ended: '24h' });
  expect(jobsOf('type', 'triage', '90d')).toEqual({ type: 'triage', ended: '90d' });
  expect(jobsOf(undefined, 'failed', '7d')).toEqual({ status: ['failed'], ended: '7d' });
});

test('a kind of tokens has no list of jobs', () => {
  expect(jobsOf(undefined, 'input', '7d')).toBeUndefined();
});
