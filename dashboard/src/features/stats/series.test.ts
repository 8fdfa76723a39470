import { expect, test } from 'vitest';

import { columns, seriesInWords, stacked, total } from './series';

test('series with values at different times share one list of times', () => {
  expect(
    columns([
      {
        labels: { status: 'completed' },
        points: [
          [10, 1],
          [30, 3],
        ],
      },
      { labels: {}, points: [[20, 2]] },
    ]),
  ).toEqual({
    times: [10, 20, 30],
    names: ['completed', 'all'],
    values: [
      [1, null, 3],
      [null, 2, null],
    ],
  });
});

test('series of zeros are left out, and their times stay', () => {
  expect(
    columns([
      {
        labels: { status: 'failed' },
        points: [
          [10, 0],
          [20, 0],
        ],
      },
    ]),
  ).toEqual({ times: [10, 20], names: [], values: [] });
});

test('the own series of the API have words, and the values of a field stay', () => {
  expect(['cache_read', 'all', 'other'].map((name) => seriesInWords(name, undefined))).toEqual([
    'Read from a cache',
    'All jobs',
    'other',
  ]);
  expect(['input', 'all'].map((name) => seriesInWords(name, 'repo'))).toEqual(['input', 'all']);
});

test('the first series of a stack contains all others', () => {
  expect(
    stacked([
      [1, 2],
      [10, null],
      [100, 200],
    ]),
  ).toEqual([
    [111, 202],
    [110, 200],
    [100, 200],
  ]);
});

test('missing values do not count in sums', () => {
  expect(total([1, null, 2])).toBe(3);
});
