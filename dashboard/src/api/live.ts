/** Live changes of jobs. The only module that knows how the dashboard learns of them: today it polls the newest page. */

import { useEffect, useEffectEvent, useSyncExternalStore } from 'react';

import { onReachable } from './client';

const INTERVAL = 2_500;
const SLOWEST = 30_000;

function isVisible(): boolean {
  return document.visibilityState === 'visible';
}

/** Call `refresh` every few seconds while the page is visible, and at once when it becomes visible again.
 *
 * refresh: returns when it is complete; the next call follows after a pause, which grows while it fails.
 */
export function useLive(refresh: (signal: AbortSignal) => Promise<unknown>, enabled = true): void {
  const run = useEffectEvent(refresh);
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
        await run(stopped.signal);
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
  connection = { isReachable, at: isReachable && (changed || Date.now() - connection.at > 1000) ? Date.now() : connection.at };
  if (changed) for (const watcher of watchers) watcher();
});

/** Whether the engine answers. */
export function useConnection(): Connection {
  return useSyncExternalStore(subscribeToConnection, () => connection);
}

function subscribeToConnection(changed: () => void): () => void {
  watchers.add(changed);
  return () => watchers.delete(changed);
}
