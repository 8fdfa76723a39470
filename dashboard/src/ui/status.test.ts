import { expect, test } from 'vitest';

import { statusNote } from './status';

const JOB = { status: 'active', cancelRequestedAt: null, notBefore: null, attempts: 1, failedCode: null } as const;

test('the note of a job says why it failed, or what it waits for', () => {
  expect(statusNote(JOB)).toBe('Running');
  expect(statusNote({ ...JOB, cancelRequestedAt: '2030-01-01T00:00:00Z' })).toBe('Cancelling');
  expect(statusNote({ ...JOB, status: 'waiting', notBefore: '2030-01-01T00:00:00Z' })).toBe('Requeued');
  expect(statusNote({ ...JOB, status: 'failed', failedCode: 'git_clone' })).toBe('Git clone');
});
