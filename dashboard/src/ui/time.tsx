import { useSyncExternalStore } from 'react';

import { age, duration, fullTime, NOTHING } from '../lib/format';
import { serverNow } from '../lib/server-time';

const MINUTE = 60_000;

let now = serverNow();
const watchers = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

function subscribe(changed: () => void): () => void {
  if (watchers.size === 0) now = serverNow(); // it has stood still while nobody watched
  watchers.add(changed);
  timer ??= setInterval(() => {
    now = serverNow();
    if (document.visibilityState === 'visible') for (const watcher of watchers) watcher();
  }, 1000);
  return () => {
    watchers.delete(changed);
    if (watchers.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

/** The current time, once a second for the whole page. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now);
}

/** The current time in whole minutes, for what need not change each second. */
export function useMinute(): number {
  return useSyncExternalStore(subscribe, () => Math.ceil(now / MINUTE) * MINUTE);
}

/**
 * The age of a time, such as `3m`, with the full time as tooltip, which is made when the pointer comes. It is drawn
 * again only when its text changes.
 */
export function Age({ at, suffix = '' }: { at: string; suffix?: string }) {
  const date = new Date(at);
  const text = useSyncExternalStore(subscribe, () => age(date, now));
  return (
    <time
      dateTime={at}
      onPointerEnter={({ currentTarget }) => {
        currentTarget.title = fullTime(date);
      }}
    >
      {text}
      {text === 'now' ? '' : suffix}
    </time>
  );
}

/** A length of time between two times; it grows while the second one is missing. */
export function Span({ from, to }: { from: string | null; to: string | null }) {
  if (from === null) return <>{NOTHING}</>;
  return to === null ? <Growing from={from} /> : <>{duration(Date.parse(to) - Date.parse(from))}</>;
}

function Growing({ from }: { from: string }) {
  return <>{useSyncExternalStore(subscribe, () => duration(now - Date.parse(from)))}</>;
}
