import { useCallback, useEffect, useEffectEvent, useLayoutEffect, useRef, useState, type RefObject } from 'react';

import { at, rowScroll, scrolled, visibleRows, type RowScroll } from '../lib/row-scroll';

export interface VirtualRows {
  /** Set on the element that scrolls. */
  ref: RefObject<HTMLDivElement | null>;
  first: number;
  end: number;
  /** Height of the content, and the distance from its start to row `first`. */
  height: number;
  offset: number;
  /** The first visible row, with the part of it that is above the screen. */
  position: number;
  /** Scroll until a row is visible. place: where it then stands. */
  scrollTo: (row: number, place?: 'nearest' | 'start' | 'center' | 'end') => void;
  isAtStart: () => boolean;
}

/**
 * Draw only the rows of a list that are visible. All rows have the same height.
 *
 * extra: rows beyond both edges. start: the position at first.
 */
export function useVirtualRows(count: number, rowHeight: number, extra = 12, headerHeight = 0, start = 0): VirtualRows {
  const ref = useRef<HTMLDivElement>(null);
  const [stored, setState] = useState<RowScroll>(() => at(rowScroll(count, rowHeight, 800), start * rowHeight));
  const latest = useRef(stored);
  const state =
    stored.total === count * rowHeight && stored.rowHeight === rowHeight
      ? stored
      : rowScroll(count, rowHeight, stored.viewport, stored);
  useLayoutEffect(() => {
    latest.current = state;
  });

  const show = useCallback((next: RowScroll) => {
    latest.current = next;
    setState(next);
    const element = ref.current;
    if (element && Math.abs(element.scrollTop - next.top) >= 1) element.scrollTop = next.top;
  }, []);

  const begin = useEffectEvent(() => {
    const element = ref.current;
    if (element && start > 0)
      show(at({ ...latest.current, viewport: element.clientHeight - headerHeight }, start * rowHeight));
  });
  useLayoutEffect(() => begin(), []);

  useEffect(() => {
    const element = ref.current;
    if (!element) return;
    const follow = () => {
      const top = element.scrollTop;
      if (Math.abs(top - latest.current.top) < 0.5) return;
      const next = scrolled(latest.current, top);
      if (Math.abs(next.top - top) >= 1) show(next);
      else setState((latest.current = next));
    };
    const measure = () => {
      const viewport = element.clientHeight - headerHeight;
      if (viewport > 0 && viewport !== latest.current.viewport)
        setState((latest.current = { ...latest.current, viewport }));
    };
    const observer = new ResizeObserver(measure); // also measures at first, after the layout of the frame
    observer.observe(element);
    element.addEventListener('scroll', follow, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener('scroll', follow);
    };
  }, [show, headerHeight]);

  const scrollTo = useCallback(
    (row: number, place: 'nearest' | 'start' | 'center' | 'end' = 'nearest') => {
      const now = latest.current;
      const [start, view] = [row * rowHeight, now.viewport];
      const position = now.top + now.shift;
      const targets = {
        start,
        center: start - (view - rowHeight) / 2,
        end: start - view + rowHeight,
        nearest: start < position ? start : start + rowHeight > position + view ? start - view + rowHeight : position,
      };
      show(at({ ...now, total: Math.max(now.total, (row + 1) * rowHeight) }, targets[place]));
    },
    [rowHeight, show],
  );

  const [first, end] = visibleRows(state, count, extra);
  return {
    ref,
    first,
    end,
    height: state.height,
    offset: first * rowHeight - state.shift,
    position: (state.top + state.shift) / rowHeight,
    scrollTo,
    isAtStart: useCallback(() => latest.current.top + latest.current.shift < rowHeight / 2, [rowHeight]),
  };
}
