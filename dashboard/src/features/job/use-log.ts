import { useEffect, useEffectEvent, useMemo, useState, useSyncExternalStore } from 'react';

import { followEvents } from '../../api/events';
import { useIsVisible } from '../../api/live';
import { LogStore } from './log-store';

const HIDDEN_MS = 10_000;

export interface Log {
  store: LogStore;
  /** Changes with each change of the store. */
  version: number;
  state: 'live' | 'reconnecting' | 'ended';
}

/**
 * The events of an attempt, followed while the tab is visible, from a time when the attempt is live to its last event.
 *
 * The end of the attempt alone does not end that: the last events may still be missing after a lost connection.
 */
export function useLog(jobId: string, attempt: number, isLive: boolean, onEnd: () => void): Log {
  const store = useMemo(() => new LogStore(jobId, attempt), [jobId, attempt]);
  const version = useSyncExternalStore(store.subscribe, store.getVersion);
  const isVisible = useRecentlyVisible();
  const [state, setState] = useState<'live' | 'reconnecting'>('live');
  const [begun, setBegun] = useState<LogStore>();
  const [complete, setComplete] = useState<LogStore>();
  if (isLive && begun !== store) setBegun(store);
  const isIncomplete = begun === store && complete !== store;
  const follows = isIncomplete && isVisible;

  useEffect(() => {
    if (store.count === undefined) void store.open();
    return () => store.close();
  }, [store]);
  const end = useEffectEvent(() => {
    setComplete(store);
    onEnd();
  });
  const isOpen = store.count !== undefined;
  useEffect(() => {
    if (!isOpen || !follows) return;
    return followEvents(
      jobId,
      { attempt, seq: store.count ?? 0 },
      {
        onEvents: (events) => {
          store.append(events);
          if (events.some((event) => event.attempt > attempt)) end();
        },
        onDone: () => end(),
        onState: setState,
      },
    );
  }, [store, jobId, attempt, follows, isOpen]);

  return { store, version, state: isLive || isIncomplete ? state : 'ended' };
}

/** Whether the tab is visible, or was a moment ago: hidden tabs close their stream, but not at once. */
function useRecentlyVisible(): boolean {
  const isVisible = useIsVisible();
  const [isRecent, setRecent] = useState(true);
  useEffect(() => {
    const timer = setTimeout(() => setRecent(isVisible), isVisible ? 0 : HIDDEN_MS);
    return () => clearTimeout(timer);
  }, [isVisible]);
  return isVisible || isRecent;
}
