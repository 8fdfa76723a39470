import { expect, test } from 'vitest';

import { RowHeights } from './row-heights';
import { at, MAX_HEIGHT, rowScroll, scrolled, visibleRows } from './row-scroll';

const LOG = new RowHeights(20);

test('few rows are placed at their true position', () => {
  const state = scrolled(rowScroll(100 * 44, 440), 880);
  expect(state.shift).toBe(0);
  expect(visibleRows(state, new RowHeights(44), 100, 0)).toEqual([20, 30]);
});

test('a million rows fit below the height limit, and the last one can be reached', () => {
  const state = rowScroll(2_000_000 * 20, 600);
  expect(state.height).toBe(MAX_HEIGHT);
  const end = scrolled(state, state.height - 600);
  expect(visibleRows(end, LOG, 2_000_000, 0)).toEqual([1_999_970, 2_000_000]);
});

test('small movements change the position exactly, at any place', () => {
  let state = at(rowScroll(2_000_000 * 20, 600), 812_441 * 20);
  expect(visibleRows(state, LOG, 2_000_000, 0)[0]).toBe(812_441);
  for (let step = 0; step < 100; step++) state = scrolled(state, state.top + 20);
  expect(visibleRows(state, LOG, 2_000_000, 0)[0]).toBe(812_541);
});

test('rows that arrive do not move the position', () => {
  const state = at(rowScroll(2_000_000 * 20, 600), 812_441 * 20);
  const grown = rowScroll(2_100_000 * 20, 600, state);
  expect(visibleRows(grown, LOG, 2_100_000, 0)[0]).toBe(812_441);
});

test('no row is drawn of an empty list', () => {
  expect(visibleRows(rowScroll(0, 600), LOG, 0, 5)).toEqual([0, 0]);
});
