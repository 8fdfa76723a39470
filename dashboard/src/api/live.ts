/** Live changes. The only module that knows how the dashboard learns of them: from the feed, or by polling. */

import { useQueryClient, type QueryClient, type QueryKey } from '@tanstack/react-query';
import { useEffect, useEffectEvent, useSyncExternalStore } from 'react';

import { applyActivities } from './activities';
import { keysOf, patchJobs, refresh, type Stale } from './changes';
import { onReachable } from './client';
import { startFeed, type Frame } from './feed';
import type { JobItem } from './jobs';

/** The time between two refreshes of lists and counts. Changed jobs appear at once. */
const REFRESH_MS = 1_000;
/** From so many changed jobs on, as in a tab that was hidden for long, all queries are read again. */
const MOST_STALE_JOBS = 1_000;

interface Listener {
  onJobs: (changed: readonly JobItem[], gone: readonly string[]) => void;
  /** So many jobs have changed that the feed does not list them. */
  onMany: () => void;
  /** Changes of an unknown time are missing. */
  onReset: () => void;
}

const listeners = new Set<Listener>();

/** Keep all queries up to date while the page is open. since: the feed's id before the first of them was read. */
export function useFeed(since: string | undefined): void {
  const start = useEffectEvent((onFrame: (frame: Frame) => void) => startFeed(onFrame, { since }));
  const queries = useQueryClient();
  useEffect(() => {
    const refresher = refreshLater(queries);
    const stop = start((frame) => {
      applyFrame(queries, frame, refresher.add);
    });
    const stopRecovery = onRecovery(() => refetchFailed(queries));
    return () => {
      stop();
      stopRecovery();
      refresher.stop();
    };
  }, [queries]);
}

/** Read the queries of the page that have failed again, without a restart of those that are being read. */
export function refetchFailed(queries: QueryClient): void {
  void queries.refetchQueries(
    { type: 'active', predicate: ({ state }) => state.status === 'error' },
    { cancelRefetch: false },
  );
}

function applyFrame(queries: QueryClient, frame: Frame, markStale: (stale: Stale) => void): void {
  patchJobs(queries, frame);
  applyActivities(frame);
  markStale(keysOf(frame));
  if (frame.jobs) for (const listener of listeners) listener.onJobs(frame.jobs, frame.gone ?? []);
}

function nothing() {
  return { keys: new Set<string>(), jobs: new Set<string>(), isAll: false, isReset: false };
}

/** Collect what is stale, and refresh it at most once a second; in a hidden tab once it becomes visible. */
function refreshLater(queries: QueryClient) {
  let stale = nothing();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let refreshedAt = 0;
  const flush = () => {
    timer = undefined;
    const hasAny = stale.isAll || stale.keys.size > 0;
    if (!isVisible() || !hasAny) return;
    refreshedAt = Date.now();
    refresh(queries, stale);
    if (stale.isReset) refetchFailed(queries); // a new engine may answer what the old one could not
    for (const listener of listeners) {
      if (stale.isReset) listener.onReset();
      else if (stale.isAll) listener.onMany();
    }
    stale = nothing();
  };
  document.addEventListener('visibilitychange', flush);
  return {
    add: (more: Stale) => {
      for (const key of more.keys) stale.keys.add(key);
      for (const job of more.jobs) stale.jobs.add(job);
      stale.isAll ||= more.isAll || stale.jobs.size > MOST_STALE_JOBS;
      stale.isReset ||= more.isReset;
      if (stale.isAll) stale.jobs.clear();
      timer ??= setTimeout(flush, Math.max(0, refreshedAt + REFRESH_MS - Date.now()));
    },
    stop: () => {
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', flush);
    },
  };
}

/** Call `onJobs` with jobs that have changed or are gone, and the others when changes are missing. */
export function useJobChanges(onJobs: Listener['onJobs'], { onMany, onReset }: Omit<Listener, 'onJobs'>): void {
  const jobs = useEffectEvent(onJobs);
  const many = useEffectEvent(onMany);
  const reset = useEffectEvent(onReset);
  useEffect(
    () =>
      listenForJobs({ onJobs: (changed, gone) => jobs(changed, gone), onMany: () => many(), onReset: () => reset() }),
    [],
  );
}

/** The same outside of components. Returns a function that stops. */
export function listenForJobs(listener: Listener): () => void {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

const INTERVAL = 2_500;
const SLOWEST = 30_000;

function isVisible(): boolean {
  return document.visibilityState === 'visible';
}

/**
 * Poll what the feed does not report: read queries again every few seconds while the page is visible, and when it
 * becomes so.
 *
 * The pause grows while they fail.
 */
export function useLive(polled: readonly { queryKey: QueryKey; exact?: boolean }[], enabled = true): void {
  const queries = useQueryClient();
  const run = useEffectEvent(() =>
    Promise.all(
      polled.map(({ queryKey, exact = false }) =>
        queries.invalidateQueries({ queryKey, exact }, { throwOnError: true }),
      ),
    ),
  );
  useEffect(() => {
    if (!enabled) return;
    const stopped = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let failures = 0;
    let running = false;
    const tick = async () => {
      if (running || !isVisible()) return;
      running = true;
      clearTimeout(timer);
      try {
        await run();
        failures = 0;
      } catch {
        failures++; // the page shows errors of its own requests; the next refresh may succeed
      } finally {
        running = false;
      }
      if (!stopped.signal.aborted) {
        const pause = Math.min(SLOWEST, INTERVAL * 2 ** Math.min(failures, 5)) * (0.8 + Math.random() * 0.4);
        timer = setTimeout(() => void tick(), pause);
      }
    };
    const resume = () => void tick();
    timer = setTimeout(() => void tick(), INTERVAL);
    document.addEventListener('visibilitychange', resume);
    return () => {
      stopped.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', resume);
    };
  }, [enabled]);
}

/** Whether this tab is visible. Hidden tabs close their streams after a while. */
export function useIsVisible(): boolean {
  return useSyncExternalStore(subscribeToVisibility, isVisible);
}

function subscribeToVisibility(changed: () => void): () => void {
  document.addEventListener('visibilitychange', changed);
  return () => document.removeEventListener('visibilitychange', changed);
}

export interface Connection {
  isReachable: boolean;
  /** Time of the latest answer. */
  at: number;
}

let connection: Connection = { isReachable: true, at: Date.now() };
const watchers = new Set<() => void>();
onReachable((isReachable) => {
  const changed = isReachable !== connection.isReachable;
  connection = {
    isReachable,
    at: isReachable && (changed || Date.now() - connection.at > 1000) ? Date.now() : connection.at,
  };
  if (!changed) return;
  for (const watcher of watchers) watcher();
  if (isReachable) recovering ??= setTimeout(recover, recoveredAt + recoveryPause - Date.now());
});

/** Whether the engine answers. */
export function useConnection(): Connection {
  return useSyncExternalStore(subscribeToConnection, () => connection);
}

function subscribeToConnection(changed: () => void): () => void {
  watchers.add(changed);
  return () => watchers.delete(changed);
}

/**
 * The time between two recoveries. It doubles with each that soon follows another: an outage of some requests only may
 * last.
 */
const RECOVERY_MS = 2_000;
const LONGEST_RECOVERY_MS = 60_000;
const recoveries = new Set<() => void>();
let recovering: ReturnType<typeof setTimeout> | undefined;
let recoveredAt = 0;
let recoveryPause = RECOVERY_MS;

function recover(): void {
  recovering = undefined;
  if (!connection.isReachable) return; // the next answer starts it again
  const isFrequent = Date.now() - recoveredAt < LONGEST_RECOVERY_MS;
  recoveryPause = isFrequent ? Math.min(LONGEST_RECOVERY_MS, recoveryPause * 2) : RECOVERY_MS;
  recoveredAt = Date.now();
  for (const run of recoveries) run();
}

/** Call `run` once the engine answers again after an outage. Returns a function that stops. */
export function onRecovery(run: () => void): () => void {
  recoveries.add(run);
  return () => void recoveries.delete(run);
}

/** Call `run` once the engine answers again. Queries of TanStack are read again without it. */
export function useRecovery(run: () => void): void {
  const recovered = useEffectEvent(run);
  useEffect(() => onRecovery(() => recovered()), []);
}
