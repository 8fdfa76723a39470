/** The list of jobs as the user left it, kept up to date for the way back to it. */

import type { QueryClient } from '@tanstack/react-query';
import { useRouter, useLocation } from '@tanstack/react-router';
import { useEffect } from 'react';

import type { JobFilter, JobOrder } from '../../api/jobs';
import { listenForJobs } from '../../api/live';
import { withFeed, type Rows } from './rows';

export interface LeftList {
  /** The list, as listKey names it. */
  key: string;
  /** The time of its filter. */
  openedAt: number;
  rows: Rows;
  /** The first row on the screen. A part of it may be above the screen. */
  position: number;
  focused: string | undefined;
  /** Changes are missing. */
  isStale: boolean;
}

/** The list's key in the cache of queries. Each sign-in loads the page, and begins with an empty cache. */
const KEY = ['left list of jobs'];

let stop = (): void => undefined;

/** Store the list that the user leaves, in place of an earlier one. */
export function storeLeftList(queries: QueryClient, list: LeftList, filter: JobFilter, order: JobOrder): void {
  forgetLeftList(queries);
  queries.setQueryDefaults(KEY, { gcTime: Infinity });
  queries.setQueryData<LeftList>(KEY, list);
  const edit = (change: (before: LeftList) => Partial<LeftList>) =>
    queries.setQueryData<LeftList>(KEY, (before) => before && { ...before, ...change(before) });
  stop = listenForJobs({
    onJobs: (changed, gone) => void edit(({ rows }) => ({ rows: withFeed(rows, changed, gone, filter, order) })),
    onMany: () => undefined, // the newest jobs and those on the screen are read on the way back
    onReset: () => void edit(() => ({ isStale: true })),
  });
}

export function forgetLeftList(queries: QueryClient): void {
  stop();
  queries.removeQueries({ queryKey: KEY });
}

export function leftList(queries: QueryClient): LeftList | undefined {
  return queries.getQueryData<LeftList>(KEY);
}

/** The entries of the browser's history that have shown the list. */
const entries = new Set<string>();

/**
 * Returns a function that returns whether the list was opened on the way back from another page: by the browser or by a
 * link.
 */
export function useIsWayBack(): () => boolean {
  const { latestLocation } = useRouter();
  const entry = useLocation({ select: ({ pathname, state }) => (pathname === '/jobs' ? state.__TSR_key : undefined) });
  useEffect(() => {
    if (entry !== undefined) entries.add(entry);
  }, [entry]);
  return () => latestLocation.state.isWayBack === true || entries.has(latestLocation.state.__TSR_key ?? '');
}
