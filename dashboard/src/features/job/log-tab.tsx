import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useEffectEvent, useRef, useState, type CSSProperties } from 'react';

import type { JobEvent } from '../../api/events';
import { attemptsQuery, hasEnded, jobQuery, type JobDetail } from '../../api/jobs';
import { plain, visible } from '../../lib/ansi';
import { cost, count, counted, offset, timeOfDay } from '../../lib/format';
import { readStored, writeStored } from '../../lib/storage';
import { Button, IconButton } from '../../ui/button';
import { Copy } from '../../ui/copy';
import { Download } from '../../ui/download';
import { Icon } from '../../ui/icons';
import { useShortcuts } from '../../ui/shortcuts';
import { describe, Empty, Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { NARROW, useMedia } from '../../ui/use-media';
import { useVirtualRows } from '../../ui/use-virtual-rows';
import { Attempts } from './attempts';
import styles from './log-tab.module.css';
import type { JobSearch } from './search';
import { whyNothing } from './sentences';
import { TerminalText } from './terminal-text';
import { callSummary, isSummary, wholeText } from './turns';
import { useHits } from './use-hits';
import { useAttempt, useChangeSearch, useJob, useJobSearch } from './use-job';
import { useLog } from './use-log';

const ROW_HEIGHT = 20;
/** The writers of log lines. */
const ORIGINS = { agent: 'Written by the agent', tool: 'Printed by a tool', engine: 'Written by the engine' } as const;
/** Characters of the input or output of a call that stand in the list. */
const DETAIL_LENGTH = 300;
/** Characters of a line for which the list surely has room. */
const ROOM = { wide: 100, narrow: 36 };
const ANNOUNCE_MS = 5_000;
const WRAP_SETTING = 'labrats.log.wrap';

export function LogTab() {
  const job = useJob();
  const attempt = useAttempt(job);
  if (attempt === 0) {
    return (
      <Empty title={job.status === 'waiting' ? 'The job has not started' : 'The job never started'}>
        {whyNothing(job, 'log')}
      </Empty>
    );
  }
  return <AttemptLog key={attempt} job={job} attempt={attempt} />;
}

function AttemptLog({ job, attempt }: { job: JobDetail; attempt: number }) {
  const queries = useQueryClient();
  const changeSearch = useChangeSearch();
  const search = useJobSearch();
  const isLive = !hasEnded(job.status) && attempt === job.attempts;
  const { store, state } = useLog(
    job.id,
    attempt,
    isLive,
    () => void queries.invalidateQueries({ queryKey: jobQuery(job.id).queryKey }),
  );
  const total = store.count ?? 0;
  const [isWrapped, setWrapped] = useState(() => readStored('localStorage', WRAP_SETTING) === 'on');
  const { ref: scroller, drawn, ...rows } = useVirtualRows(total, ROW_HEIGHT, { extra: 20, isMeasured: isWrapped });
  const [isFollowing, setFollowing] = useState(search.line === undefined);
  const [seen, setSeen] = useState(0);
  const { data: attempts } = useQuery({ ...attemptsQuery(job.id), enabled: job.attempts > 1 });
  const start = Date.parse(store.row(0)?.at ?? attempts?.[attempt - 1]?.startedAt ?? job.processedAt ?? job.createdAt);
  // The hit to open once the search has found it: the next or the previous one
  const [wanted, setWanted] = useState<1 | -1>();
  const hits = useHits(job, attempt, search.q ?? '', isLive, wanted !== undefined);

  const isDetail = (line: number) => store.row(line - 1)?.kind === 'tool' && isSummary(store.row(line - 2));
  useEffect(() => store.need(rows.first, rows.end));
  const { scrollTo } = rows;
  const isOpen = store.count !== undefined;
  useEffect(() => {
    if (isOpen && search.line !== undefined) scrollTo(search.line - 1, 'center');
  }, [isOpen, search.line, scrollTo]);
  useEffect(() => {
    if (isFollowing && total > 0) scrollTo(total - 1, 'end');
  }, [isFollowing, total, scrollTo]);
  if (isFollowing && seen !== total) setSeen(total);

  const change = (edit: { [Name in keyof JobSearch]?: JobSearch[Name] | undefined }) =>
    changeSearch((before) => ({ ...before, ...edit }) as typeof search);
  const goTo = (line: number) => {
    setFollowing(false);
    change({ line });
  };
  const follow = (on: boolean) => {
    setFollowing(on);
    if (on) change({ line: undefined });
    else setSeen(total);
  };
  const scrolledTo = useRef(0);
  const stopAtScrollBack = ({ scrollTop, scrollHeight, clientHeight }: HTMLElement) => {
    if (scrollTop < scrolledTo.current && scrollTop + clientHeight < scrollHeight - ROW_HEIGHT) setFollowing(false);
    scrolledTo.current = scrollTop;
  };
  const openHit = useEffectEvent((step: 1 | -1) => {
    hits
      .seek(search.line ?? (step === 1 ? 0 : total + 1), step)
      .then(
        (line) => {
          if (line !== undefined) goTo(line);
        },
        (error: unknown) => toast(describe(error).message, 'error'),
      )
      .finally(() => setWanted(undefined));
  });
  const isFound = hits.total !== undefined;
  useEffect(() => {
    if (wanted !== undefined && isFound) openHit(wanted);
  }, [wanted, isFound]);
  const field = useRef<HTMLInputElement>(null);
  useShortcuts([
    { keys: '/', label: 'Search the log', run: () => field.current?.focus() },
    { keys: 'n', label: 'Next hit', run: () => setWanted(1) },
    { keys: 'N', label: 'Previous hit', run: () => setWanted(-1) },
    ...(state === 'ended'
      ? []
      : [
          { keys: 'f', label: 'Follow', run: () => follow(!isFollowing) },
          { keys: ' ', label: 'Pause or follow', run: () => follow(!isFollowing), isHidden: true },
        ]),
    {
      keys: 'Home',
      label: 'First line',
      run: () => {
        setFollowing(false);
        scrollTo(0, 'start');
      },
    },
    { keys: 'End', label: 'Last line', run: () => scrollTo(total - 1, 'end') },
  ]);

  const wrap = (on: boolean) => {
    setWrapped(on);
    writeStored('localStorage', WRAP_SETTING, on ? 'on' : undefined);
  };
  const below = isFollowing ? 0 : Math.max(0, total - seen);
  const needle = (search.q ?? '').toLowerCase();
  return (
    <div className={styles.page} data-fills-page>
      <div className={styles.bar}>
        <Attempts job={job} />
        <div role="search" className={styles.search}>
          <Icon name="search" size={14} />
          <input
            ref={field}
            type="search"
            aria-label="Search the log"
            placeholder="Search the log"
            defaultValue={search.q}
            onChange={(event) => {
              setWanted(undefined);
              change({ q: event.target.value || undefined });
            }}
            onKeyDown={(event) => {
              if (event.key === 'Enter') setWanted(event.shiftKey ? -1 : 1);
              if (event.key === 'Escape') event.currentTarget.blur();
            }}
          />
        </div>
        {search.q && (
          <>
            <span className={styles.note} aria-live="polite">
              {hits.error
                ? describe(hits.error).message
                : hits.total === undefined
                  ? 'Searching…'
                  : hits.total === 0
                    ? 'No hits'
                    : `${hits.position(search.line)}${count(hits.total)}`}
            </span>
            <IconButton icon="chevronUp" label="Previous hit" onClick={() => setWanted(-1)} disabled={!hits.total} />
            <IconButton icon="chevronDown" label="Next hit" onClick={() => setWanted(1)} disabled={!hits.total} />
          </>
        )}
        <span className={styles.space} />
        <LineField total={total} onGo={goTo} />
        <label className={styles.wrap}>
          <input type="checkbox" checked={isWrapped} onChange={(event) => wrap(event.target.checked)} /> Wrap
        </label>
        <Button
          kind="quiet"
          className={styles.timeToggle}
          aria-pressed={search.time === 'clock'}
          onClick={() => change({ time: search.time ? undefined : 'clock' })}
        >
          {search.time ? 'Clock time' : 'Run time'}
        </Button>
        <Download
          kind="quiet"
          url={`/api/jobs/${encodeURIComponent(job.id)}/logs?format=text`}
          file={`${job.id}.log`}
          label="Plain text"
          title="Save the log as plain text"
        />
      </div>
      {store.error !== undefined && (
        <div className={styles.message}>
          <Failure error={store.error} onRetry={() => void store.open()} />
        </div>
      )}
      <div
        ref={scroller}
        className={styles.scroller}
        tabIndex={0}
        data-shortcuts
        role="region"
        aria-label={`Log of attempt ${attempt}`}
        onScroll={(event) => stopAtScrollBack(event.currentTarget)}
      >
        {!isOpen && store.error === undefined && (
          <div className={styles.message}>
            <Loading rows={12} height={ROW_HEIGHT} />
          </div>
        )}
        {isOpen && total === 0 && (
          <Empty title="The log is empty">
            {isLive
              ? 'The attempt has printed nothing so far.'
              : 'The attempt printed nothing, or its output was deleted.'}
          </Empty>
        )}
        <div
          className={`${styles.rows} ${isWrapped ? styles.wrapped : ''}`}
          style={{ height: rows.height, '--digits': count(total).length } as CSSProperties}
        >
          <div ref={drawn} className={styles.window} style={{ transform: `translateY(${rows.offset}px)` }}>
            {Array.from({ length: rows.end - rows.first }, (_, position) => {
              const line = rows.first + position + 1;
              return (
                <LogRow
                  key={line}
                  line={line}
                  event={store.row(line - 1)}
                  isDetail={isDetail(line)}
                  start={start}
                  isClock={search.time === 'clock'}
                  needle={needle}
                  isChosen={line === search.line}
                  onChoose={goTo}
                />
              );
            })}
          </div>
        </div>
      </div>
      {search.line !== undefined && (
        <ChosenLine
          line={search.line}
          event={store.row(search.line - 1)}
          isDetail={isDetail(search.line)}
          isWrapped={isWrapped}
          onClose={() => change({ line: undefined })}
        />
      )}
      <div className={styles.foot}>
        {state === 'ended' ? (
          <span>{counted(total, 'line')}</span>
        ) : (
          <button
            type="button"
            className={styles.follow}
            aria-pressed={isFollowing}
            onClick={() => follow(!isFollowing)}
          >
            <span className={isFollowing && state !== 'reconnecting' ? styles.live : styles.paused} />
            {state === 'reconnecting' ? 'Reconnecting…' : isFollowing ? 'Following' : 'Paused'}
            {below > 0 && ` · ${count(below)} new below`}
          </button>
        )}
        <span className={styles.space} />
        {!isFollowing && total > 0 && (
          <Button
            kind="quiet"
            icon="arrowDown"
            onClick={() => {
              if (state === 'ended') scrollTo(total - 1, 'end');
              else follow(true);
            }}
          >
            End
          </Button>
        )}
      </div>
      <Announcement count={below} />
    </div>
  );
}

/** The chosen line in full, wrapped. Nothing while it is not loaded, or if the list has room for it. */
function ChosenLine({
  line,
  event,
  isDetail,
  isWrapped,
  onClose,
}: {
  line: number;
  event: JobEvent | null | undefined;
  isDetail: boolean;
  isWrapped: boolean;
  onClose: () => void;
}) {
  const room = useMedia(NARROW) ? ROOM.narrow : ROOM.wide;
  const text = event ? plainText(event, isDetail) : '';
  if (!event || (isWrapped && !isDetail) || (text.length <= room && !text.includes('\n'))) return null;
  return (
    <section className={styles.whole} aria-label={`Line ${line} in full`}>
      <pre tabIndex={0}>
        {lineOf(event, isDetail)
          .split('\n')
          .map((each, index) => (
            <div key={index}>
              <TerminalText line={each} />
            </div>
          ))}
      </pre>
      <Copy text={text} name="Copy the line" />
      <IconButton icon="close" label="Close the line" onClick={onClose} />
    </section>
  );
}

/** Tell screen readers about new lines, at most every few seconds. */
function Announcement({ count: below }: { count: number }) {
  const [text, setText] = useState('');
  const latest = useRef(below);
  useEffect(() => {
    latest.current = below;
  }, [below]);
  useEffect(() => {
    const timer = setInterval(
      () => setText(latest.current > 0 ? counted(latest.current, 'new line') : ''),
      ANNOUNCE_MS,
    );
    return () => clearInterval(timer);
  }, []);
  return (
    <div className="visually-hidden" aria-live="polite">
      {text}
    </div>
  );
}

function LineField({ total, onGo }: { total: number; onGo: (line: number) => void }) {
  return (
    <form
      className={styles.line}
      onSubmit={(event) => {
        event.preventDefault();
        const line = Number(new FormData(event.currentTarget).get('line'));
        if (line >= 1 && line <= total) onGo(line);
      }}
    >
      <label>
        <span>line</span>
        <input
          name="line"
          type="number"
          min={1}
          max={Math.max(1, total)}
          aria-label={`Go to line, 1 to ${count(total)}`}
        />
      </label>
      <span>/ {count(total)}</span>
    </form>
  );
}

interface LogRowProps {
  line: number;
  event: JobEvent | null | undefined;
  /** It is a call or an answer that the line before names. */
  isDetail: boolean;
  start: number;
  isClock: boolean;
  needle: string;
  isChosen: boolean;
  onChoose: (line: number) => void;
}

function LogRow({ line, event, isDetail, start, isClock, needle, isChosen, onChoose }: LogRowProps) {
  const at = event && new Date(event.at);
  return (
    <div
      className={styles.row}
      data-chosen={isChosen || undefined}
      data-kind={event?.kind}
      data-origin={event?.origin}
      data-detail={isDetail || undefined}
      title={event?.origin ? ORIGINS[event.origin] : undefined}
    >
      <button
        type="button"
        className={styles.number}
        tabIndex={-1}
        aria-label={`Select line ${line}`}
        onClick={() => onChoose(line)}
      >
        {count(line)}
      </button>
      <span className={styles.time}>{at && (isClock ? timeOfDay(at) : `+${offset(at.getTime() - start)}`)}</span>
      <span className={styles.text}>
        {event === undefined ? (
          '…'
        ) : event === null ? (
          ''
        ) : (
          <TerminalText line={isDetail ? shortened(lineOf(event, true)) : lineOf(event, false)} needle={needle} />
        )}
      </span>
    </div>
  );
}

function plainText(event: JobEvent, isDetail: boolean): string {
  return lineOf(event, isDetail).split('\n').map(plain).join('\n');
}

/** The text of an event. The line before a call already names it, so that only its input or output is left. */
function lineOf(event: JobEvent, isDetail: boolean): string {
  if (event.kind === 'log') return event.text ?? '';
  return isDetail ? wholeText(event) : eventText(event);
}

/** The start of a text, with symbols for the ends of its lines. */
function shortened(text: string): string {
  return (text.length > DETAIL_LENGTH ? `${text.slice(0, DETAIL_LENGTH)}…` : text).replaceAll('\n', ' ↵ ');
}

function requestText(request: NonNullable<JobEvent['request']>): string {
  const target = `${request.method} ${visible(request.path)}${request.model ? `, ${visible(request.model)}` : ''}`;
  if (request.refusal) return `model request refused: ${target}: ${visible(request.refusal)}`;
  return `model request: ${target}: ${request.status}, ${count(request.inputTokens)} input, ${count(request.outputTokens)} output tokens, ${count(request.milliseconds)} ms`;
}

function refusedHostText({ host, port, reason }: NonNullable<JobEvent['refusedHost']>): string {
  return `host refused: ${visible(host)}${port === null ? '' : `, port ${port}`}: ${visible(reason)}`;
}

function usageText({ inputTokens, outputTokens, turns, costUsd }: NonNullable<JobEvent['usage']>): string {
  const tokens = `${count(inputTokens)} input, ${count(outputTokens)} output tokens`;
  return `usage: ${tokens}, ${counted(turns, 'turn')}${costUsd ? `, ${cost(costUsd)}` : ''}`;
}

function eventText(event: JobEvent): string {
  switch (event.kind) {
    case 'log':
      return plain(event.text ?? '');
    case 'tool':
      return event.name == null
        ? `◂ ${event.isError ? 'failed: ' : ''}${(event.output ?? '').split('\n', 1)[0] ?? ''}`
        : `▸ ${event.name} ${callSummary(event.input)}`;
    case 'status':
      return `${event.state ?? ''}${event.message ? `: ${event.message}` : ''}`;
    case 'usage':
      return event.usage ? usageText(event.usage) : '';
    case 'output':
      return 'outputs reported';
    case 'request':
      return event.request ? requestText(event.request) : '';
    case 'refused_host':
      return event.refusedHost ? refusedHostText(event.refusedHost) : '';
    case 'result':
      return 'the attempt completed';
    case 'error':
      return (event.code ? `${event.code}: ` : '') + visible(event.message ?? '');
    default: // a kind of a later engine
      return visible(event.kind);
  }
}
