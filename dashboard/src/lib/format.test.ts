import { expect, test } from 'vitest';

import {
  age,
  bytes,
  clock,
  compact,
  cost,
  costs,
  count,
  counted,
  duration,
  fullTime,
  latency,
  offset,
  ordinal,
  placeInLine,
  span,
} from './format';

test.each([
  [0, '0.0s'],
  [432, '0.4s'],
  [9_999, '9.9s'],
  [41_000, '41s'],
  [59_999, '59s'],
  [192_000, '3m12s'],
  [7_500_000, '2h05m'],
  [273_600_000, '3d04h'],
  [-5, '0.0s'],
])('a duration of %d ms is %s', (ms, text) => {
  expect(duration(ms)).toBe(text);
});

test.each([
  [0, '0'],
  [0.4, '<1ms'],
  [49.99999, '50ms'],
  [999.4, '999ms'],
  [999.6, '1.0s'],
  [65_000, '1m05s'],
])('a latency of %d ms is %s', (ms, text) => {
  expect(latency(ms)).toBe(text);
});

test.each([
  [999, '999'],
  [1_000, '1k'],
  [1_240, '1.2k'],
  [81_400, '81k'],
  [1_200_000, '1.2M'],
  [9_960, '10k'],
])('%d is %s in short', (value, text) => {
  expect(compact(value)).toBe(text);
});

test('an unknown cost is a dash, and a small one is not zero', () => {
  expect([null, undefined, 0, 0.0021, 0.42].map(cost)).toEqual(['—', '—', '$0.00', '$0.0021', '$0.42']);
  expect([1234.5, 999.999, 1e6].map(cost)).toEqual(['$1,234.50', '$1,000.00', '$1,000,000.00']);
});

test('the cost of jobs, some of which have an unknown one, is no exact sum', () => {
  const known = [null, 0, 0.42].map((costUsd) => costs({ costUsd, unknownCosts: 0 }));
  expect(known).toEqual(['—', '$0.00', '$0.42']);
  const unknown = [null, 0, 0.42].map((costUsd) => costs({ costUsd, unknownCosts: 2 }));
  expect(unknown).toEqual(['unknown', 'unknown', 'at least $0.42']);
});

test('ages, offsets, sizes and counts have units', () => {
  const now = Date.UTC(2030, 0, 1);
  expect([2_000, 50_000, 190_000, 7_300_000, 200_000_000].map((ms) => age(new Date(now - ms), now))).toEqual([
    'now',
    '50s',
    '3m',
    '2h',
    '2d',
  ]);
  expect([41_000, 3_723_000].map(offset)).toEqual(['00:41', '1:02:03']);
  expect([600_000, 86_400_000, 2_592_000_000, 5_400_000, 1_500].map(span)).toEqual([
    '10 minutes',
    '1 day',
    '30 days',
    '90 minutes',
    '1.5 seconds',
  ]);
  expect([0, 512, 900 * 1024, 1_200_000, 100 * 2 ** 20, 2 ** 50].map(bytes)).toEqual([
    '0 B',
    '512 B',
    '900 KiB',
    '1.1 MiB',
    '100 MiB',
    '1024 TiB',
  ]);
  expect([counted(1, 'job'), counted(2_000, 'job')]).toEqual(['1 job', '2,000 jobs']);
});

test('places are numbered in words', () => {
  expect([1, 2, 3, 4, 11, 21, 102, 1_000].map(ordinal)).toEqual([
    '1st',
    '2nd',
    '3rd',
    '4th',
    '11th',
    '21st',
    '102nd',
    '1,000th',
  ]);
  expect([1, 2].map(placeInLine)).toEqual(['Next in line', '2nd in line']);
});

test.each([
  [0, '0'],
  [999, '999'],
  [1_000, '1,000'],
  [1_234_567.4, '1,234,567'],
  [-1_000, '-1,000'],
])('the count of %d is %s', (value, text) => {
  expect(count(value)).toBe(text);
});

test('a time has its date unless that is today', () => {
  const at = new Date(2030, 0, 3, 9, 5, 7);
  expect([clock(at, new Date(2030, 0, 3, 23, 0)), clock(at.toISOString(), new Date(2030, 0, 2))]).toEqual([
    '09:05:07',
    '3 Jan, 09:05:07',
  ]);
});

test('a full time has its zone', () => {
  const at = new Date(2030, 0, 3, 9, 5, 7);
  const hours = -at.getTimezoneOffset() / 60;
  expect(fullTime(at)).toBe(`3 Jan 2030, 09:05:07 UTC${hours === 0 ? '' : hours > 0 ? `+${hours}` : hours}`);
  const inIndia = Object.assign(new Date(at), { getTimezoneOffset: () => -330 });
  expect(fullTime(inIndia)).toBe('3 Jan 2030, 09:05:07 UTC+5:30');
});
