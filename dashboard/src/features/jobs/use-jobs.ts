/** The list of jobs that match a filter: loaded page by page, and kept up to date. */

import { useCallback, useEffect, useRef, useState, type RefObject } from 'react';

import { fetchItem, fetchJobs, hasEnded, type JobFilter, type JobItem, type JobOrder } from '../../api/jobs';
import { useJobChanges, useRecovery } from '../../api/live';
import type { LeftList } from './left-list';
import {
  matches,
  MOST_NEWER,
  NO_ROWS,
  withChanges,
  withFeed,
  withFirstPage,
  withNewerHeld,
  withNewerShown,
  withPage,
  type Rows,
} from './rows';

export interface Jobs extends Rows {
  isLoading: boolean;
  error: unknown;
  loadMore: () => void;
  retry: () => void;
  showNewer: () => void;
  /** Put changed jobs into the list at once, such as after an action. */
  store: (changed: readonly JobItem[]) => void;
}

interface State {
  rows: Rows;
  error: unknown;
}

/** The pause before the list is read again: after a change, for a search for text; or once a request has ended. */
const PAUSE_MS = 500;

/** Rows of a list that grows at its start, from which on it begins again with one page. */
const MOST_ROWS = 300;

const EMPTY: State = { rows: NO_ROWS, error: undefined };

export interface Reader {
  /** Whether new jobs may be inserted at once. */
  isAtTop: () => boolean;
  /** The jobs on the screen. */
  visible: () => readonly JobItem[];
  /** The number of the row after them. */
  end: () => number;
  /** Whether jobs are selected: then the list gets no shorter, lest some of them are forgotten. */
  hasSelection: () => boolean;
}

export function useJobs(
  filter: JobFilter,
  order: JobOrder,
  reader: RefObject<Reader>,
  left: LeftList | undefined,
): Jobs {
  const [state, setState] = useState(left ? { rows: left.rows, error: undefined } : EMPTY);
  const [isLoading, setLoading] = useState(false);
  const request = useRef<AbortController>(undefined);
  const reading = useRef(0); // requests on their way
  const change = useCallback(
    (edit: (rows: Rows) => Rows) => setState((before) => ({ ...before, rows: edit(before.rows) })),
    [],
  );

  const load = useCallback(
    async (cursor: string) => {
      request.current?.abort();
      const current = (request.current = new AbortController());
      setLoading(true);
      reading.current++;
      try {
        const page = await fetchJobs(filter, cursor, { order, signal: current.signal });
        setState((before) => ({ rows: withPage(cursor === '' ? NO_ROWS : before.rows, page), error: undefined }));
      } catch (error) {
        if (!current.signal.aborted) setState((before) => ({ ...before, error }));
      }
      reading.current--;
      if (request.current === current) setLoading(false);
    },
    [filter, order],
  );

  useEffect(() => {
    if (!left) void load('');
    return () => request.current?.abort();
  }, [load, left]);

  const refresh = useRef<AbortController>(undefined);
  const length = useRef(0);
  useEffect(() => {
    length.current = state.rows.jobs.length;
  });
  /** Read the newest page again. Rows further down that are on the screen are read one by one. */
  const readAgain = useCallback(async () => {
    refresh.current?.abort();
    const { signal } = (refresh.current = new AbortController());
    reading.current++;
    try {
      const page = order === 'newest' ? await fetchJobs(filter, '', { signal }) : { jobs: [], next: null };
      if (order === 'newest')
        change((rows) =>
          reader.current.isAtTop() ? withNewerShown(withFirstPage(rows, page)) : withFirstPage(rows, page),
        );
      const fresh = new Set(page.jobs.map((job) => job.id));
      const open = reader.current
        .visible()
        .filter((job) => !fresh.has(job.id) && !hasEnded(job.status))
        .slice(0, 8);
      const items = (await Promise.all(open.map((job) => fetchItem(job, signal)))).filter((job) => job !== undefined);
      change((rows) =>
        withChanges(rows, items, new Set(items.filter((job) => !matches(job, filter)).map((job) => job.id))),
      );
    } catch {
      // the whole list is read again once the engine answers
    }
    reading.current--;
  }, [filter, order, change, reader]);
  useEffect(() => () => refresh.current?.abort(), [readAgain]);

  /**
   * Read the list again, since any of its rows may have changed: up to its present length, or to the rows on the
   * screen.
   */
  const startAgain = useCallback(async () => {
    refresh.current?.abort();
    const { signal } = (refresh.current = new AbortController());
    reading.current++;
    try {
      let rows = NO_ROWS;
      const wanted = () =>
        reader.current.hasSelection()
          ? length.current
          : Math.max(reader.current.end(), Math.min(length.current, MOST_ROWS));
      do {
        rows = withPage(rows, await fetchJobs(filter, rows.next ?? '', { order, signal }));
      } while (rows.next && rows.jobs.length < wanted());
      setState((before) => ({
        rows: order === 'newest' && !reader.current.isAtTop() ? withNewerHeld(rows, before.rows.jobs[0]) : rows,
        error: undefined,
      }));
    } catch {
      // tried again once the engine answers
    }
    reading.current--;
  }, [filter, order, reader]);

  useEffect(() => {
    if (left) void (left.isStale ? startAgain() : readAgain());
  }, [left, startAgain, readAgain]);

  const later = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(later.current), [readAgain]);
  const readLater = () => {
    clearTimeout(later.current);
    later.current = setTimeout(() => (reading.current > 0 ? readLater() : void readAgain()), PAUSE_MS);
  };
  const recover = () => {
    if (state.rows.next !== undefined) void startAgain();
    else if (!isLoading) void load('');
  };
  useRecovery(recover);
  useJobChanges(
    (changed, gone) => {
      if (filter.q || reading.current > 0) readLater(); // an answer on its way may be older than the change
      if (state.rows.next === undefined) return;
      if (
        order === 'newest' &&
        reader.current.isAtTop() &&
        state.rows.jobs.length > MOST_ROWS &&
        !isLoading &&
        !reader.current.hasSelection()
      )
        return void load('');
      change((rows) => {
        const next = withFeed(rows, changed, gone, filter, order);
        return order === 'newest' && reader.current.isAtTop() ? withNewerShown(next) : next;
      });
    },
    {
      onMany: () => {
        if (reading.current > 0) readLater();
        else if (state.rows.next !== undefined) void readAgain();
      },
      onReset: recover,
    },
  );

  const { rows, error } = state;
  return {
    ...rows,
    error,
    isLoading,
    loadMore: () => {
      if (!isLoading && !error && rows.next) void load(rows.next);
    },
    retry: () => void load(rows.next ?? ''),
    showNewer: () => (rows.newer.length === MOST_NEWER ? void load('') : change(withNewerShown)),
    store: (changed) => change((before) => withChanges(before, changed)),
  };
}
