/** The events of a job: pages by number, and the live stream. */

import { body, client, reportReachable, type Schemas } from './client';
import { pause, readStream, type StreamedEvent } from './event-stream';
import { takeSlot } from './stream-slots';

export type JobEvent = Schemas['EventView'];

/** The place of an event: its attempt, and its number there, counted from 1. */
export interface Place {
  attempt: number;
  seq: number;
}

export function placeOf(id: string): Place {
  const [attempt = '1', seq = '0'] = id.split('-');
  return { attempt: Number(attempt), seq: Number(seq) };
}

export function idOf({ attempt, seq }: Place): string {
  return `${attempt}-${seq}`;
}

export type EventPage = Schemas['EventPage'];

export interface EventQuery {
  after?: string;
  before?: string;
  tail?: boolean;
  q?: string;
  /** Only events of this attempt. */
  attempt?: number;
  limit: number;
}

export async function fetchEventPage(jobId: string, query: EventQuery, signal?: AbortSignal): Promise<EventPage> {
  const page = await body(
    client.GET('/api/jobs/{job_id}/events', { params: { path: { job_id: jobId }, query }, signal: signal ?? null }),
  );
  return page as EventPage; // without `Accept: text/event-stream` the answer is never text
}

/** Get at most `limit` events after a place, in order. */
export async function fetchEvents(
  jobId: string,
  after: Place,
  limit: number,
  signal?: AbortSignal,
): Promise<JobEvent[]> {
  return (await fetchEventPage(jobId, { after: idOf(after), limit }, signal)).events;
}

export interface StreamHandlers {
  /** Events in order, without gaps or repeats, also after an interruption. */
  onEvents: (events: JobEvent[]) => void;
  /** The job has ended, and all its events were sent. */
  onDone: () => void;
  onState?: (state: 'live' | 'reconnecting') => void;
}

const FRAME = 250;
const SHORTEST_PAUSE = 1_000;
const LONGEST_PAUSE = 30_000;

/** The pause before the next attempt to connect: it doubles, and differs between clients. */
export function reconnectPause(failures: number, random = Math.random()): number {
  return Math.min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** Math.min(failures, 10)) * (0.5 + random / 2);
}

const POLL_MS = 2_000;
const POLL_LIMIT = 1_000;

/**
 * Follow a job's events from a place on: by a stream if the browser has a slot for one, else by polling.
 *
 * Returns a function that stops.
 */
export function followEvents(jobId: string, after: Place, handlers: StreamHandlers): () => void {
  const stopped = new AbortController();
  const isStopped = () => stopped.signal.aborted;
  let stopStream: (() => void) | undefined;
  let position = after;
  let failures = 0;
  const poll = async (): Promise<void> => {
    const free = await takeSlot();
    if (isStopped()) return free?.();
    if (free) {
      const stop = stream(jobId, position, {
        ...handlers,
        onDone: () => {
          free();
          handlers.onDone();
        },
      });
      stopStream = () => {
        stop();
        free();
      };
      return;
    }
    let pause = POLL_MS;
    try {
      const page = await fetchEventPage(jobId, { after: idOf(position), limit: POLL_LIMIT }, stopped.signal);
      const last = page.events.at(-1);
      if (last) {
        position = placeOf(last.id);
        handlers.onEvents(page.events);
      }
      failures = 0;
      handlers.onState?.('live');
      if (page.next === null) return handlers.onDone();
      if (page.events.length === POLL_LIMIT) pause = 0;
    } catch {
      if (isStopped()) return;
      handlers.onState?.('reconnecting');
      pause = reconnectPause(++failures);
    }
    setTimeout(() => {
      if (!isStopped()) void poll();
    }, pause);
  };
  void poll();
  return () => {
    stopped.abort();
    stopStream?.();
  };
}

/** Read a stream, and connect again when the connection is lost. Returns a function that stops. */
function stream(jobId: string, after: Place, handlers: StreamHandlers): () => void {
  const stopped = new AbortController();
  let position = after;
  let frame: ReturnType<typeof setTimeout> | undefined;
  let pending: JobEvent[] = [];

  const flush = () => {
    frame = undefined;
    const events = pending;
    pending = [];
    if (events.length > 0) handlers.onEvents(events);
  };
  const stop = () => {
    stopped.abort();
    clearTimeout(frame);
    frame = undefined;
  };
  const take = (events: StreamedEvent[]) => {
    for (const { data } of events) {
      const event = JSON.parse(data) as JobEvent | { done: true };
      if ('done' in event) {
        stop();
        flush();
        handlers.onDone();
        return;
      }
      position = placeOf(event.id);
      pending.push(event);
      frame ??= setTimeout(flush, FRAME);
    }
  };
  const read = async () => {
    let failures = 0;
    for (;;) {
      const url = `/api/jobs/${encodeURIComponent(jobId)}/events?after=${idOf(position)}`;
      const onOpen = () => {
        failures = 0;
        reportReachable(true);
        handlers.onState?.('live');
      };
      await readStream(url, { signal: stopped.signal, onOpen, onEvents: take }).catch(() => undefined);
      if (stopped.signal.aborted) return;
      handlers.onState?.('reconnecting');
      await pause(reconnectPause(failures++), stopped.signal);
    }
  };
  void read();
  return stop;
}
