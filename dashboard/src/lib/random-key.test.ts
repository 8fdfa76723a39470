import { expect, test } from 'vitest';

import { randomKey } from './random-key';

test('keys are 32 hex digits, and differ', () => {
  const keys = Array.from({ length: 100 }, randomKey);
  expect(new Set(keys).size).toBe(100);
  for (const key of keys) expect(key).toMatch(/^[0-9a-f]{32}$/);
});
