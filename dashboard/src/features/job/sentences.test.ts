import { expect, test } from 'vitest';

import type { JobDetail } from '../../api/jobs';
import { retryEffect, whyNoRetry, whyWaiting } from './sentences';

const NOW = Date.UTC(2030, 0, 1);
const job = (fields: object): JobDetail =>
  ({ status: 'failed', createdAt: new Date(NOW).toISOString(), workspaceSetup: null, session: null, notBefore: null, failedReason: null, provider: 'claude', model: 'opus', priority: 2, ...fields }) as unknown as JobDetail;

test('a failed job can be retried, unless the token of its repository is old', () => {
  expect(whyNoRetry(job({}), NOW)).toBeUndefined();
  expect(whyNoRetry(job({ status: 'completed' }), NOW)).toContain('Only a failed job');
  const withToken = job({ workspaceSetup: { hasCredential: true } });
  expect(whyNoRetry(withToken, NOW + 60_000)).toBeUndefined();
  expect(whyNoRetry(withToken, NOW + 601_000)).toContain('Rerun');
});

test('a retry resumes a session, or starts over', () => {
  expect(retryEffect(job({ session: { provider: 'claude', id: 'x', attempt: 1 } }))).toContain('resumes');
  expect(retryEffect(job({}))).toContain('starts over');
});

test('a waiting job names its model, or the time before which it does not start', () => {
  expect(whyWaiting(job({}), NOW)).toBe('Waits for a free slot of claude/opus, with priority 2.');
  expect(whyWaiting(job({ notBefore: new Date(NOW + 65_000).toISOString(), failedReason: 'rate limit' }), NOW)).toBe(
    'Requeued; starts in 1m05s at the earliest: rate limit',
  );
});
