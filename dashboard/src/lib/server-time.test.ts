import { expect, test } from 'vitest';

import { noteServerTime, serverNow } from './server-time';

const NOON = Date.parse('2030-01-01T12:00:00Z');
const header = (ms: number) => new Date(ms).toUTCString();

test('the time is that of the engine, if the clock of the browser is wrong', () => {
  noteServerTime(header(NOON + 7_200_000), NOON);
  expect(serverNow(NOON)).toBe(NOON + 7_200_000);
  noteServerTime(header(NOON + 7_201_000), NOON + 2_400); // within the tolerance: ages do not jump
  expect(serverNow(NOON)).toBe(NOON + 7_200_000);
  noteServerTime(null, NOON);
  noteServerTime('nonsense', NOON);
  expect(serverNow(NOON)).toBe(NOON + 7_200_000);
  noteServerTime(header(NOON), NOON + 900);
  expect(serverNow(NOON)).toBe(NOON);
});
