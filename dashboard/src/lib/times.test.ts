import { expect, test } from 'vitest';

import { daysAgo } from './times';

test('a time some days ago is the same for one minute', () => {
  const noon = Date.parse('2030-01-02T12:00:00Z');
  expect([noon - 59_000, noon].map((now) => daysAgo(1, now))).toEqual([
    '2030-01-01T12:00:00.000Z',
    '2030-01-01T12:00:00.000Z',
  ]);
  expect(daysAgo(7, noon + 1)).toBe('2029-12-26T12:01:00.000Z');
});
