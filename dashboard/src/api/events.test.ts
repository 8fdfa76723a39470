import { expect, test } from 'vitest';

import { placeOf, reconnectPause } from './events';

test('the place of an event is read from its id', () => {
  expect(placeOf('2-17')).toEqual({ attempt: 2, seq: 17 });
});

test('pauses between attempts to connect grow to 30 seconds', () => {
  expect([0, 1, 2, 9, 50].map((failures) => reconnectPause(failures, 1))).toEqual([
    1_000, 2_000, 4_000, 30_000, 30_000,
  ]);
  expect(reconnectPause(0, 0)).toBe(500);
});
