/** The list of jobs that match a filter: loaded page by page, and kept up to date. */

import { useQueryClient } from '@tanstack/react-query';
import { useCallback, useEffect, useRef, useState } from 'react';

import { fetchJobs, hasEnded, type JobFilter, type JobItem, type JobOrder } from '../../api/jobs';
import { useLive } from '../../api/live';
import { NO_ROWS, withChanges, withNewerShown, withNewest, withPage, type Rows } from './rows';

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

const EMPTY: State = { rows: NO_ROWS, error: undefined };

/** isAtTop: whether new jobs may be inserted at once. visible: the ids of the jobs on the screen. */
export function useJobs(filter: JobFilter, order: JobOrder, isAtTop: () => boolean, visible: () => readonly JobItem[]): Jobs {
  const queries = useQueryClient();
  const [state, setState] = useState(EMPTY);
  const [isLoading, setLoading] = useState(false);
  const request = useRef<AbortController>(undefined);
  const change = useCallback((edit: (rows: Rows) => Rows) => setState((before) => ({ ...before, rows: edit(before.rows) })), []);

  const load = useCallback(async (cursor: string) => {
    request.current?.abort();
    const current = (request.current = new AbortController());
    setLoading(true);
    try {
      const page = await fetchJobs(filter, cursor, { order, signal: current.signal });
      setState((before) => ({ rows: withPage(cursor === '' ? NO_ROWS : before.rows, page), error: undefined }));
    } catch (error) {
      if (!current.signal.aborted) setState((before) => ({ ...before, error }));
    }
    if (request.current === current) setLoading(false);
  }, [filter, order]);

  useEffect(() => {
    void load('');
    return () => request.current?.abort();
  }, [load]);

  useLive(async (signal) => {
    if (state.rows.next === undefined) return;
    if (order === 'newest') {
      const page = await fetchJobs(filter, '', { signal });
      change((rows) => (isAtTop() ? withNewerShown(withNewest(rows, page)) : withNewest(rows, page)));
      const fresh = new Set(page.jobs.map((job) => job.id));
      await refreshVisible(visible().filter((job) => !fresh.has(job.id)), signal);
    } else {
      await refreshVisible(visible(), signal);
    }
    await queries.invalidateQueries({ queryKey: ['facets'] });
  });

  /** Refresh the visible jobs that may still change: those that have not ended. */
  async function refreshVisible(jobs: readonly JobItem[], signal: AbortSignal): Promise<void> {
    const open = jobs.filter((job) => !hasEnded(job.status)).slice(0, 8);
    const pages = await Promise.all(open.map((job) => fetchJobs({ q: job.id }, '', { limit: 1, signal })));
    const found = pages.flatMap((page) => page.jobs);
    const wanted = filter.status;
    const gone = wanted ? found.filter((job) => !wanted.includes(job.status)).map((job) => job.id) : [];
    if (found.length > 0) change((rows) => withChanges(rows, found, new Set(gone)));
  }

  const { rows, error } = state;
  return {
    ...rows,
    error,
    isLoading,
    loadMore: () => {
      if (!isLoading && !error && rows.next) void load(rows.next);
    },
    retry: () => void load(rows.next ?? ''),
    showNewer: () => change(withNewerShown),
    store: (changed) => change((before) => withChanges(before, changed)),
  };
}
