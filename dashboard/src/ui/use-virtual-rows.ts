import {
  useCallback,
  useEffect,
  useEffectEvent,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
  type RefObject,
} from 'react';

import { RowHeights } from '../lib/row-heights';
import { at, rowScroll, scrolled, visibleRows, type RowScroll } from '../lib/row-scroll';

type Place = 'nearest' | 'start' | 'center' | 'end';

export interface VirtualRows {
  /** Set on the element that scrolls. */
  ref: RefObject<HTMLDivElement | null>;
  /** Set on the element whose children are the drawn rows, if they are measured. */
  drawn: RefObject<HTMLDivElement | null>;
  first: number;
  end: number;
  /** Height of the content, and the distance from its start to row `first`. */
  height: number;
  offset: number;
  /** The first visible row, with the part of it that is above the screen. */
  position: number;
  /** Scroll until a row is visible. place: where it then stands. */
  scrollTo: (row: number, place?: Place) => void;
  isAtStart: () => boolean;
}

export interface RowOptions {
  /** Rows beyond both edges. */
  extra?: number;
  headerHeight?: number;
  /** The position at first. */
  start?: number;
  /** Rows may be higher than `rowHeight`. Those that are drawn are measured. */
  isMeasured?: boolean;
}

/** Draw only the rows of a list that are visible. All rows have the same height, unless they are measured. */
export function useVirtualRows(count: number, rowHeight: number, options: RowOptions = {}): VirtualRows {
  const { extra = 12, headerHeight = 0, start = 0, isMeasured = false } = options;
  const ref = useRef<HTMLDivElement>(null);
  const drawn = useRef<HTMLDivElement>(null);
  const heights = useMemo(() => new RowHeights(rowHeight), [rowHeight]);
  const total = heights.start(count);
  const [stored, setState] = useState<RowScroll>(() => at(rowScroll(total, 800), start * rowHeight));
  const latest = useRef(stored);
  const state = stored.total === total ? stored : rowScroll(total, stored.viewport, stored);
  const [first, end] = visibleRows(state, heights, count, extra);
  // The row that was scrolled to keeps its place while rows around it are measured, until the reader scrolls
  const target = useRef<{ row: number; place: Place }>(undefined);
  const isMoving = useRef(false);
  useLayoutEffect(() => {
    latest.current = state;
    const element = ref.current;
    // Only now has the content its new height
    if (isMoving.current && element && Math.abs(element.scrollTop - state.top) >= 1) element.scrollTop = state.top;
    isMoving.current = false;
  });

  const show = useCallback((next: RowScroll) => {
    latest.current = next;
    isMoving.current = true;
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

  const positionOf = useCallback(
    (row: number, place: Place) => {
      const [begins, height, view] = [heights.start(row), heights.of(row), latest.current.viewport];
      const position = latest.current.top + latest.current.shift;
      const positions = {
        start: begins,
        center: begins - Math.max(0, view - height) / 2,
        end: begins - view + height,
        nearest: begins < position ? begins : begins + height > position + view ? begins - view + height : position,
      };
      return Math.round(positions[place]);
    },
    [heights],
  );

  const measuredWidth = useRef(0);
  /** Measure the drawn rows. What the reader looks at keeps its place on the screen. */
  const measureRows = useEffectEvent(() => {
    const width = (isMeasured && drawn.current?.clientWidth) || 0;
    if (width === 0 && measuredWidth.current === 0) return;
    const position = latest.current.top + latest.current.shift;
    const row = heights.rowAt(position);
    const above = position - heights.start(row);
    let isChanged = measuredWidth.current !== width;
    if (isChanged) heights.clear();
    measuredWidth.current = width;
    const children = width > 0 ? [...(drawn.current?.children ?? [])] : [];
    for (const [index, child] of children.entries())
      if (heights.set(first + index, child.getBoundingClientRect().height)) isChanged = true;
    if (!isChanged) return;
    const kept = target.current
      ? positionOf(target.current.row, target.current.place)
      : Math.round(heights.start(row) + Math.min(above, heights.of(row) - 1));
    show(at(rowScroll(heights.start(count), latest.current.viewport, latest.current), kept));
  });
  useLayoutEffect(() => measureRows());

  useEffect(() => {
    const element = ref.current;
    if (!element) return;
    const follow = () => {
      const top = element.scrollTop;
      const distance = Math.abs(top - latest.current.top);
      if (distance < 0.5 || isMoving.current) return;
      if (distance >= 1) target.current = undefined;
      const next = scrolled(latest.current, top);
      if (Math.abs(next.top - top) >= 1) show(next);
      else setState((latest.current = next));
    };
    const measure = () => {
      const viewport = element.clientHeight - headerHeight;
      if (viewport > 0 && viewport !== latest.current.viewport)
        setState((latest.current = { ...latest.current, viewport }));
      measureRows();
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
    (row: number, place: Place = 'nearest') => {
      const now = latest.current;
      target.current = { row, place };
      show(at(rowScroll(Math.max(now.total, heights.start(row + 1)), now.viewport, now), positionOf(row, place)));
    },
    [heights, positionOf, show],
  );

  const position = state.top + state.shift;
  const row = heights.rowAt(position);
  return {
    ref,
    drawn,
    first,
    end,
    height: state.height,
    offset: heights.start(first) - state.shift,
    position: row + (position - heights.start(row)) / heights.of(row),
    scrollTo,
    isAtStart: useCallback(() => latest.current.top + latest.current.shift < rowHeight / 2, [rowHeight]),
  };
}
