import { keepPreviousData, useQuery, useQueryClient } from '@tanstack/react-query';
import { memo, useEffect, useEffectEvent, useMemo, useRef, useState } from 'react';

import { placeOf, type JobEvent } from '../../api/events';
import { hasEnded, jobQuery, type JobDetail } from '../../api/jobs';
import { plain, visible, visibleLines } from '../../lib/ansi';
import { compact, cost, count, counted, duration, offset } from '../../lib/format';
import { Button } from '../../ui/button';
import { Icon } from '../../ui/icons';
import { useShortcuts } from '../../ui/shortcuts';
import { Empty, Failure, Loading } from '../../ui/states';
import { useNow } from '../../ui/time';
import styles from './activity-tab.module.css';
import { AgentText, Lines } from './agent-text';
import { Attempts } from './attempts';
import type { LogStore } from './log-store';
import { KINDS, type Kind } from './search';
import { whyNothing } from './sentences';
import { callSummary, contains, fold, isSameEntry, type CallEntry, type Entry } from './turns';
import { useAttempt, useChangeSearch, useJob, useJobSearch } from './use-job';
import { useLog } from './use-log';

/** Events that are read at once. */
const WINDOW = 2_000;
/**
 * Bounds of the live events in the list, so that it stays quick. A reader who follows then sees the latest; for one who
 * reads back, the list ends.
 */
const MOST_LIVE = { following: WINDOW, reading: 10_000 };
const KIND_LABELS: Record<Kind, string> = { errors: 'Errors', tools: 'Tools', text: 'Text' };

/**
 * The events that were read. first: the number of events before them. startedAt: the time of the attempt's first event.
 */
interface Part {
  first: number;
  events: readonly JobEvent[];
  startedAt: string | undefined;
}

const NOTHING_READ: Part = { first: 0, events: [], startedAt: undefined };

export function ActivityTab() {
  const job = useJob();
  const attempt = useAttempt(job);
  if (attempt === 0) {
    return (
      <Empty title={job.status === 'waiting' ? 'The job has not started' : 'The job never started'}>
        {whyNothing(job, 'activity')}
      </Empty>
    );
  }
  return <AttemptActivity key={attempt} job={job} attempt={attempt} />;
}

function AttemptActivity({ job, attempt }: { job: JobDetail; attempt: number }) {
  const queries = useQueryClient();
  const change = useChangeSearch();
  const { show, q } = useJobSearch();
  const isLive = !hasEnded(job.status) && attempt === job.attempts;
  const log = useLog(
    job.id,
    attempt,
    isLive,
    () => void queries.invalidateQueries({ queryKey: jobQuery(job.id).queryKey }),
  );
  const [length, setLength] = useState(WINDOW);
  const { store } = log;
  const queryKey = ['activity', job.id, attempt, length];
  const earlier = useQuery({
    queryKey,
    enabled: store.count !== undefined && store.count > 0,
    staleTime: Infinity,
    gcTime: 0, // a later visit reads what has happened since
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }): Promise<Part> => {
      const events: JobEvent[] = [];
      const first = Math.max(0, (store.count ?? 0) - length);
      for (let after = first; after < (store.count ?? 0);) {
        const page = await store.read(after, signal);
        events.push(...page);
        const last = page.at(-1);
        if (!last) break;
        after = placeOf(last.id).seq;
      }
      const [begin] = first > 0 ? await store.read(0, signal, 1) : events;
      return { first, events, startedAt: begin?.at };
    },
  });
  const { first, events, startedAt } = earlier.data ?? NOTHING_READ;
  const last = events.at(-1);
  const live = last ? (store.count ?? 0) - placeOf(last.id).seq : 0;
  const [isFollowing, setFollowing] = useState(isLive);
  const isFull = !isFollowing && live > MOST_LIVE.reading;
  // A full list does not change: the memory of the log may lose its events
  const version = isFull ? undefined : log.version;
  const entries = useMemo(() => fold(withLive(events, store, version)), [events, store, version]);
  const shown = useMemo(() => {
    const needle = q?.toLowerCase();
    return entries.filter((entry) => matches(entry, show) && (needle === undefined || contains(entry, needle)));
  }, [entries, show, q]);
  const start = Date.parse(startedAt ?? entries[0]?.at ?? job.processedAt ?? job.createdAt);
  const longest = entries.reduce(
    (most, entry) =>
      entry.kind === 'call' && entry.endedAt ? Math.max(most, Date.parse(entry.endedAt) - Date.parse(entry.at)) : most,
    1,
  );

  const list = useRef<HTMLDivElement>(null);
  const end = useRef<HTMLDivElement>(null);
  const follower = useRef<ResizeObserver>(undefined);
  useEffect(() => {
    if (!list.current || !isFollowing || !isLive) return;
    // Entries get their height only when they are drawn, after the effects of their change.
    const observer = new ResizeObserver(() => end.current?.scrollIntoView({ block: 'end' }));
    observer.observe(list.current);
    follower.current = observer;
    return () => observer.disconnect();
  }, [isFollowing, isLive]);
  const follow = (isWanted: boolean) => {
    setFollowing(isWanted);
    // The list stays as it is for one who reads back, also if its latest part was about to replace it.
    if (!isWanted && earlier.isRefetching && !earlier.isPlaceholderData) void queries.cancelQueries({ queryKey });
  };
  useScrollBack(() => {
    follower.current?.disconnect(); // at once: entries that come into view change the height, too
    follow(false);
  });
  const { refetch } = earlier;
  const readLatest = () => {
    if (length === WINDOW) void refetch();
    else setLength(WINDOW);
  };
  const isTooLong = isLive && isFollowing && !earlier.isFetching && !earlier.isError && live > MOST_LIVE.following;
  if (isTooLong && length !== WINDOW) setLength(WINDOW);
  useEffect(() => {
    if (isTooLong) void refetch();
  }, [isTooLong, refetch]);
  const latestError = useRef<Element>(undefined);
  const goToError = () => {
    const errors = [...document.querySelectorAll<HTMLElement>('[data-error]')];
    const known = errors.findIndex((element) => element === latestError.current);
    const next =
      known < 0
        ? (errors.find((element) => element.getBoundingClientRect().top > 200) ?? errors[0])
        : errors[(known + 1) % errors.length];
    if (!next) return;
    latestError.current = next;
    follow(false);
    next.scrollIntoView({ block: 'center' });
    next.querySelector<HTMLElement>('summary, button')?.focus();
  };
  const field = useRef<HTMLInputElement>(null);
  useShortcuts([
    { keys: '/', label: 'Find in the activity', run: () => field.current?.focus() },
    { keys: 'f', label: 'Follow', run: () => follow(!isFollowing) },
    { keys: 'e', label: 'Next error', run: goToError },
  ]);

  return (
    <>
      <div className={styles.bar}>
        <Attempts job={job} />
        <div role="group" aria-label="Kinds of activity" className={styles.kinds}>
          {([undefined, ...KINDS] as const).map((kind) => (
            <button
              key={kind ?? 'all'}
              type="button"
              aria-pressed={show === kind}
              onClick={() => change(({ show: _, ...before }) => (kind ? { ...before, show: kind } : before))}
            >
              {kind ? KIND_LABELS[kind] : 'All'}
            </button>
          ))}
        </div>
        <div role="search" className={styles.search}>
          <Icon name="search" size={14} />
          <input
            ref={field}
            type="search"
            aria-label="Find in the activity"
            placeholder="Find"
            defaultValue={q}
            onChange={(event) => {
              const text = event.target.value;
              change(({ q: _, ...before }) => (text ? { ...before, q: text } : before));
            }}
            onKeyDown={(event) => {
              if (event.key === 'Escape') event.currentTarget.blur();
            }}
          />
        </div>
        {q && (
          <span className={styles.found} aria-live="polite">
            {shown.length === 0 ? 'Not found' : `${count(shown.length)} found`}
            {first > 0 && ` in the last ${counted((store.count ?? 0) - first, 'event')}`}
          </span>
        )}
        <span className={styles.space} />
        {isLive && (
          <>
            {log.state === 'reconnecting' && <span className={styles.note}>Reconnecting…</span>}
            <label className={styles.follow}>
              <input type="checkbox" checked={isFollowing} onChange={(event) => follow(event.target.checked)} /> Follow
            </label>
          </>
        )}
      </div>
      <div ref={list} className={styles.list}>
        {store.error !== undefined && <Failure error={store.error} onRetry={() => void store.open()} />}
        {earlier.error && <Failure error={earlier.error} onRetry={() => void earlier.refetch()} />}
        {first > 0 && (
          <Button kind="quiet" onClick={() => setLength((store.count ?? 0) - first + WINDOW)}>
            Show {count(Math.min(WINDOW, first))} of {counted(first, 'earlier event')}
          </Button>
        )}
        {store.count === undefined || earlier.isLoading ? (
          store.error === undefined && <Loading rows={8} height={32} />
        ) : shown.length === 0 ? (
          <Empty
            title={
              q
                ? 'Nothing found'
                : show
                  ? `No ${KIND_LABELS[show].toLowerCase()}`
                  : isLive
                    ? 'Nothing so far'
                    : 'No activity'
            }
          >
            {q
              ? 'No entry contains this text. The log can be searched as a whole.'
              : isLive
                ? 'The attempt runs; its activity appears here.'
                : show
                  ? 'The attempt left no such activity.'
                  : 'The attempt printed nothing, or its output was deleted.'}
          </Empty>
        ) : (
          <ol>
            {shown.map((entry) => (
              <EntryRow
                key={entry.id}
                entry={entry}
                start={start}
                longest={longest}
                hasMarkdown={job.provider !== 'mock'}
              />
            ))}
          </ol>
        )}
        {isFull && (
          <Button
            kind="quiet"
            onClick={() => {
              setFollowing(true);
              readLatest();
            }}
          >
            Show the latest of {counted(live - MOST_LIVE.reading, 'newer event')}
          </Button>
        )}
        <div ref={end} className={styles.end} />
      </div>
    </>
  );
}

/** Call `onBack` when the reader scrolls back, by any means. A page that has become shorter moves back by itself. */
function useScrollBack(onBack: () => void): void {
  const back = useEffectEvent(onBack);
  useEffect(() => {
    const page = document.documentElement;
    let [top, height] = [page.scrollTop, page.scrollHeight];
    const scrolled = () => {
      if (page.scrollTop < top && page.scrollHeight >= height) back();
      [top, height] = [page.scrollTop, page.scrollHeight];
    };
    document.addEventListener('scroll', scrolled, { passive: true });
    return () => document.removeEventListener('scroll', scrolled);
  }, []);
}

/**
 * Add the events that arrived after those that were read. They are in the memory of the log, whose version grows with
 * them.
 */
function withLive(read: readonly JobEvent[], store: LogStore, _: number | undefined): readonly JobEvent[] {
  const last = read.at(-1);
  if (!last || store.count === undefined) return read;
  const live: JobEvent[] = [];
  const first = placeOf(last.id).seq;
  const end = Math.min(store.count, first + MOST_LIVE.reading);
  for (let index = first; index < end; index++) {
    const event = store.row(index);
    if (event) live.push(event);
  }
  return live.length > 0 ? [...read, ...live] : read;
}

function matches(entry: Entry, kind: Kind | undefined): boolean {
  switch (kind) {
    case 'errors':
      return entry.kind === 'error' || (entry.kind === 'call' && entry.isError);
    case 'tools':
      return entry.kind === 'call';
    case 'text':
      return entry.kind === 'text';
    default:
      return true;
  }
}

interface RowProps {
  entry: Entry;
  start: number;
  longest: number;
  /** Whether the agent writes Markdown, as models do. */
  hasMarkdown: boolean;
}

const EntryRow = memo(
  function EntryRow({ entry, start, longest, hasMarkdown }: RowProps) {
    const time = (
      <time className={styles.time} dateTime={entry.at}>
        {offset(Date.parse(entry.at) - start)}
      </time>
    );
    switch (entry.kind) {
      case 'text':
        return (
          <li className={styles.entry}>
            {time}
            <div className={styles.text} data-origin={entry.origin}>
              {entry.origin === 'engine' && <span className={styles.origin}>engine</span>}
              {hasMarkdown && entry.origin === 'agent' ? (
                <AgentText lines={entry.lines} />
              ) : (
                <Lines lines={entry.lines} />
              )}
            </div>
          </li>
        );
      case 'call':
        return (
          <li className={styles.entry} data-error={entry.isError || undefined}>
            {time}
            <Call entry={entry} longest={longest} />
          </li>
        );
      case 'state':
        return (
          <li className={`${styles.entry} ${styles.state}`}>
            {time}
            <p>
              {!entry.message?.startsWith(entry.state) && (
                <>
                  <span>{entry.state}</span>{' '}
                </>
              )}
              {entry.message && visible(entry.message)}
            </p>
          </li>
        );
      case 'error':
        return (
          <li className={`${styles.entry} ${styles.error}`} data-error>
            {time}
            <p>
              <Icon name="warning" size={14} /> <code>{entry.code}</code> {visible(entry.message)}
            </p>
          </li>
        );
      case 'end':
        return (
          <li className={`${styles.entry} ${styles.state}`}>
            {time}
            <p>{entry.message}</p>
          </li>
        );
    }
  },
  (before, after) =>
    isSameEntry(before.entry, after.entry) && before.start === after.start && before.longest === after.longest,
);

function Call({ entry, longest }: { entry: CallEntry; longest: number }) {
  const ms = entry.endedAt === undefined ? undefined : Date.parse(entry.endedAt) - Date.parse(entry.at);
  const [isOpen, setOpen] = useState(false);
  return (
    <details className={styles.call} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <Icon name="chevronRight" size={14} />
        <span className={styles.tool}>{visible(entry.name)}</span>
        <code className={styles.summary}>{visible(callSummary(entry.input))}</code>
        {entry.isError && <span className={styles.failed}>✕ failed</span>}
        {entry.tokens > 0 && (
          <span className={styles.spent} title={`${counted(entry.tokens, 'token')} of input and output`}>
            +{compact(entry.tokens)} tok{entry.costUsd !== null && entry.costUsd > 0 && ` +${cost(entry.costUsd)}`}
          </span>
        )}
        <span className={styles.duration}>{ms === undefined ? <Running since={entry.at} /> : duration(ms)}</span>
        <span className={styles.track} aria-hidden="true">
          <span style={{ width: `${((ms ?? 0) / longest) * 100}%` }} />
        </span>
      </summary>
      {isOpen && (
        <div className={styles.detail}>
          {entry.input != null && (
            <>
              <h2>Input</h2>
              <pre>
                {visibleLines(typeof entry.input === 'string' ? entry.input : JSON.stringify(entry.input, null, 2))}
              </pre>
            </>
          )}
          {entry.output != null && (
            <>
              <h2>Output</h2>
              <Output text={entry.output} />
            </>
          )}
        </div>
      )}
    </details>
  );
}

const SHORT_LINES = 60;

function Output({ text }: { text: string }) {
  const [isWhole, setWhole] = useState(false);
  const lines = text.split('\n');
  const shown = isWhole ? lines : lines.slice(0, SHORT_LINES);
  return (
    <>
      <pre>{shown.map((line) => visible(plain(line))).join('\n')}</pre>
      {shown.length < lines.length && (
        <Button kind="quiet" onClick={() => setWhole(true)}>
          Show all {count(lines.length)} lines
        </Button>
      )}
    </>
  );
}

function Running({ since }: { since: string }) {
  return <>{duration(useNow() - Date.parse(since))} …</>;
}
