/**
 * Position of virtual rows, also of more rows than an element can be high.
 *
 * Browsers cap the height of elements (Firefox at 17.9 million pixels). Beyond MAX_HEIGHT the scrolled element is
 * shorter than all rows together, and a shift is added to its position: small movements change the position
 * exactly, and a jump of the scroll bar is proportional.
 */

import type { RowHeights } from './row-heights';

export const MAX_HEIGHT = 8_000_000;

export interface RowScroll {
  /** Height of all rows. */
  total: number;
  /** Height of the scrolled element. */
  height: number;
  viewport: number;
  /** Position of the scroll bar. */
  top: number;
  /** Distance between a row's true position and its position in the element. */
  shift: number;
}

export function rowScroll(total: number, viewport: number, last?: RowScroll): RowScroll {
  const height = Math.min(total, MAX_HEIGHT);
  const before = last ?? { top: 0, shift: 0 };
  const state = { total, height, viewport, top: before.top, shift: before.shift };
  return height === total ? { ...state, shift: 0 } : at(state, before.top + before.shift);
}

/** The state after the scroll bar has moved to `top`. Its `top` may differ: the caller then moves the scroll bar. */
export function scrolled(state: RowScroll, top: number): RowScroll {
  if (state.height === state.total) return { ...state, top };
  if (Math.abs(top - state.top) < 2 * state.viewport) return at(state, top + state.shift);
  const share = top / Math.max(1, state.height - state.viewport);
  return at(state, share * (state.total - state.viewport));
}

/** The state that shows the rows from the true position `position` on. */
export function at(state: RowScroll, position: number): RowScroll {
  const end = Math.max(0, state.total - state.viewport);
  const bounded = Math.min(Math.max(0, position), end);
  if (state.height === state.total) return { ...state, top: bounded, shift: 0 };
  const top = end === 0 ? 0 : Math.round((bounded / end) * (state.height - state.viewport));
  return { ...state, top, shift: bounded - top };
}

/** The first row to draw, and the one after the last. */
export function visibleRows(state: RowScroll, heights: RowHeights, count: number, extra: number): [number, number] {
  const position = state.top + state.shift;
  const first = Math.max(0, heights.rowAt(position) - extra);
  return [Math.min(first, count), Math.min(count, heights.rowsUntil(position + state.viewport) + extra)];
}
