import { expect, test } from 'vitest';

import { RowHeights } from './row-heights';

test('rows have the usual height until they are measured', () => {
  const heights = new RowHeights(20);
  expect([heights.start(3), heights.rowAt(59), heights.rowAt(60)]).toEqual([60, 2, 3]);
  expect(heights.set(1, 100)).toBe(true);
  expect(heights.set(1, 100)).toBe(false);
  expect([heights.of(1), heights.start(1), heights.start(2), heights.start(3)]).toEqual([100, 20, 120, 140]);
  heights.clear();
  expect(heights.start(3)).toBe(60);
});

test('a position inside a tall row belongs to that row', () => {
  const heights = new RowHeights(20);
  heights.set(1, 100);
  expect([0, 19, 20, 119, 120, 139].map((position) => heights.rowAt(position))).toEqual([0, 0, 1, 1, 2, 2]);
  expect([20, 21, 120, 121].map((position) => heights.rowsUntil(position))).toEqual([1, 2, 2, 3]);
});

test('tall rows anywhere in a million move all rows after them', () => {
  const heights = new RowHeights(20);
  for (let row = 0; row < 1_000_000; row += 1000) heights.set(row, 60);
  expect(heights.start(1_000_000)).toBe(1_000_000 * 20 + 1000 * 40);
  for (const row of [0, 1, 499, 500, 999, 1000, 1001, 812_441, 999_999]) {
    expect(heights.rowAt(heights.start(row))).toBe(row);
    expect(heights.rowAt(heights.start(row + 1) - 1)).toBe(row);
  }
  heights.set(812_000, 20);
  expect(heights.start(812_441)).toBe(812_441 * 20 + 812 * 40);
});
