/** The events of one attempt with random access by number, of which only the pages near the reader are in memory. */

import { isFinal } from '../../api/client';
import { fetchEventPage, fetchEvents, idOf, placeOf, type JobEvent } from '../../api/events';

export const PAGE = 500;
export const MAX_PAGES = 40;
/** The pause after a failed request, which doubles with each further one. */
const PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
/** Events that are read first. They contain at least one whole page. */
export const TAIL = 2 * PAGE;

/** The requests of a log. Both answer events of the attempt only, in order. */
export interface LogSource {
  after: (seq: number, limit: number, signal: AbortSignal) => Promise<JobEvent[]>;
  /** The last events so far. */
  tail: (limit: number, signal: AbortSignal) => Promise<JobEvent[]>;
}

type Page = (JobEvent | undefined)[];

/** The rows of a log: row n is the event with the number n + 1. */
export class LogStore {
  /** The number of rows; undefined until it is known. */
  count: number | undefined;
  error: unknown;
  /** Grows with each change. */
  version = 0;

  private readonly pages = new Map<number, Page>();
  private readonly loading = new Set<number>();
  private stopped = new AbortController();
  private failures = 0;
  private retryAt = 0;
  private opening: ReturnType<typeof setTimeout> | undefined;
  private readonly watchers = new Set<() => void>();

  constructor(
    readonly jobId: string,
    readonly attempt: number,
    private readonly source = sourceOf(jobId, attempt),
  ) {}

  subscribe = (changed: () => void): (() => void) => {
    this.watchers.add(changed);
    return () => this.watchers.delete(changed);
  };

  getVersion = (): number => this.version;

  /** Abort all requests. The store can be used further. */
  close(): void {
    this.stopped.abort();
    this.stopped = new AbortController();
    clearTimeout(this.opening);
  }

  /**
   * Read the end of the log, which tells how many rows there are. After a temporary error, read it again after a pause.
   */
  async open(): Promise<void> {
    const { signal } = this.stopped;
    clearTimeout(this.opening);
    this.retryAt = 0;
    try {
      const events = await this.source.tail(TAIL, signal);
      const [first, last] = [events[0], events.at(-1)];
      // Only pages that are complete are kept. Fewer events than requested are the whole log.
      const complete = first && events.length === TAIL ? placeOf(first.id).seq - 1 : 0;
      this.error = undefined;
      this.failures = 0;
      this.place(events.filter((event) => pageStart(event) >= complete));
      this.grow(last ? placeOf(last.id).seq : 0);
    } catch (error) {
      if (signal.aborted) return;
      if (this.count === undefined && !isFinal(error))
        this.opening = setTimeout(() => void this.open(), this.nextPause());
      this.fail(error);
    }
  }

  /** The event of a row, if it is in memory. Null: the row has no event that is shown. */
  row(index: number): JobEvent | null | undefined {
    const page = this.pages.get(Math.floor(index / PAGE));
    return page && (page[index % PAGE] ?? null);
  }

  /** Load the pages of some rows, and forget those that were used least recently. */
  need(first: number, end: number): void {
    if (this.count === undefined) return;
    for (let number = Math.floor(first / PAGE); number * PAGE < Math.min(end, this.count); number++) {
      const page = this.pages.get(number);
      if (page) {
        this.pages.delete(number);
        this.pages.set(number, page);
      } else {
        void this.load(number);
      }
    }
    this.forget();
  }

  /** Add events that arrived live. */
  append(events: readonly JobEvent[]): void {
    const own = events.filter((event) => event.attempt === this.attempt);
    const last = own.at(-1);
    if (!last) return;
    this.place(own);
    this.forget();
    this.grow(Math.max(this.count ?? 0, placeOf(last.id).seq));
  }

  /** Read the rows from `first` on, in order, past the pages in memory. Used for searching. */
  async read(first: number, signal: AbortSignal, limit = 1000): Promise<JobEvent[]> {
    return this.source.after(first, limit, AbortSignal.any([signal, this.stopped.signal]));
  }

  private async load(number: number): Promise<void> {
    if (this.loading.has(number) || Date.now() < this.retryAt) return;
    const { signal } = this.stopped;
    this.loading.add(number);
    try {
      const events = await this.source.after(number * PAGE, PAGE, signal);
      if (!this.pages.has(number)) this.pages.set(number, []);
      this.place(events.filter((event) => Math.floor((placeOf(event.id).seq - 1) / PAGE) === number));
      this.error = undefined;
      this.failures = 0;
      this.changed();
    } catch (error) {
      if (!signal.aborted) this.pause(error);
    } finally {
      this.loading.delete(number);
    }
  }

  /** Put events into their pages. A page that is not in memory is created only by its first event. */
  private place(events: readonly JobEvent[]): void {
    for (const event of events) {
      const index = placeOf(event.id).seq - 1;
      const number = Math.floor(index / PAGE);
      let page = this.pages.get(number);
      if (!page) {
        if (index % PAGE !== 0 && this.count !== undefined && index - (index % PAGE) < this.count) continue;
        page = [];
        this.pages.set(number, page);
      }
      page[index % PAGE] = event;
    }
  }

  private forget(): void {
    for (const number of this.pages.keys()) {
      if (this.pages.size <= MAX_PAGES) return;
      this.pages.delete(number);
    }
  }

  private grow(count: number): void {
    this.count = count;
    this.changed();
  }

  /** Load no page for a while; the change at its end makes readers ask again. */
  private pause(error: unknown): void {
    const pause = this.nextPause();
    this.retryAt = Date.now() + pause;
    setTimeout(() => this.changed(), pause);
    this.fail(error);
  }

  /** The pause before the next request, in milliseconds. It doubles with each call. */
  private nextPause(): number {
    return Math.min(LONGEST_PAUSE_MS, PAUSE_MS * 2 ** this.failures++);
  }

  private fail(error: unknown): void {
    this.error = error;
    this.changed();
  }

  private changed(): void {
    this.version++;
    for (const watcher of this.watchers) watcher();
  }
}

/** The index of the first row on the page of an event. */
function pageStart(event: JobEvent): number {
  const index = placeOf(event.id).seq - 1;
  return index - (index % PAGE);
}

function sourceOf(jobId: string, attempt: number): LogSource {
  const own = (events: JobEvent[]) => events.filter((event) => event.attempt === attempt);
  return {
    after: async (seq, limit, signal) => own(await fetchEvents(jobId, { attempt, seq }, limit, signal)),
    tail: async (limit, signal) =>
      own((await fetchEventPage(jobId, { before: idOf({ attempt: attempt + 1, seq: 0 }), limit }, signal)).events),
  };
}
