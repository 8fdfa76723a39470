/** The feed of changes: one tab of the browser reads it, and relays it to the others. */

import { isOfProxy, reportReachable, type Schemas } from './client';
import { pause, readStream, StreamRefused } from './event-stream';
import { reconnectPause } from './events';
import { browserLocks } from './stream-slots';

/** The changes of a moment. */
export interface Frame {
  jobs?: Schemas['JobItem'][];
  gone?: string[];
  /** New activities of running jobs, by id. */
  activities?: Record<string, string>;
  kinds?: string[];
  counts?: Record<string, number>;
  /** More jobs have changed than the frame can hold. */
  many?: boolean;
  /** Changes were lost, or may have been. */
  reset?: boolean;
}

interface Message {
  id?: string | undefined;
  frame?: Frame;
  isReachable: boolean;
}

/** The parts of the browser that the feed uses. */
export interface FeedOptions {
  /** The id from which on changes are wanted. Without one, the first frame is a reset. */
  since?: string | undefined;
  /** Undefined on pages without TLS. */
  locks?: LockManager | undefined;
  isVisible?: () => boolean;
  fetch?: typeof fetch;
}

const NAME = 'labrats-feed';
export const PING_MS = 5_000;
/** The silence after which a visible tab takes over from the tab that reads. */
export const SILENCE_MS = 20_000;

/** Pass each frame of the feed to `onFrame`, in every tab. Returns a function that stops. */
export function startFeed(onFrame: (frame: Frame) => void, options: FeedOptions = {}): () => void {
  const { locks = browserLocks(), isVisible = () => document.visibilityState === 'visible' } = options;
  const stopped = new AbortController();
  const channel = new BroadcastChannel(NAME);
  let lastId = options.since;
  let heardAt = Date.now();
  let isReading = false;

  const take = (message: Message) => {
    heardAt = Date.now();
    lastId = message.id ?? lastId;
    reportReachable(message.isReachable);
    if (message.frame) onFrame(message.frame);
  };
  const share = (message: Message) => {
    take(message);
    if (!stopped.signal.aborted) channel.postMessage(message);
  };
  channel.onmessage = ({ data }: MessageEvent<Message>) => take(data);

  const read = async (signal: AbortSignal) => {
    let isReachable = true;
    const note = (message: Message) => {
      isReachable = message.isReachable;
      share(message);
    };
    isReading = true;
    const pings = setInterval(() => share({ id: lastId, isReachable }), PING_MS);
    try {
      await follow(note, () => lastId, signal, options.fetch ?? fetch);
    } finally {
      clearInterval(pings);
      isReading = false;
    }
  };
  /** Wait for the lock, and read while this tab has it. steal: take it from a tab that no longer reads. */
  const lead = async (lockManager: LockManager, steal: boolean): Promise<void> => {
    const reading = new AbortController();
    const stop = () => reading.abort();
    stopped.signal.addEventListener('abort', stop);
    try {
      await lockManager.request(NAME, steal ? { steal } : { signal: stopped.signal }, () => read(reading.signal));
    } catch {
      // another tab has stolen the lock, or the feed was stopped
    }
    stop();
    stopped.signal.removeEventListener('abort', stop);
    if (!steal && !stopped.signal.aborted) void lead(lockManager, false);
  };
  const watch = (lockManager: LockManager) => {
    if (isReading || !isVisible() || Date.now() - heardAt < SILENCE_MS) return;
    heardAt = Date.now();
    void lead(lockManager, true);
  };

  let watching: ReturnType<typeof setInterval> | undefined;
  if (locks) {
    void lead(locks, false);
    watching = setInterval(() => watch(locks), 1_000);
  } else {
    stopped.signal.addEventListener('abort', readWhileVisible(read));
  }
  return () => {
    stopped.abort();
    clearInterval(watching);
    channel.close();
  };
}

/**
 * Read only while this tab is visible: without locks each tab needs its own connection. Returns a function that stops.
 */
function readWhileVisible(read: (signal: AbortSignal) => Promise<void>): () => void {
  let reading: AbortController | undefined;
  const update = () => {
    reading?.abort();
    reading = undefined;
    if (document.visibilityState !== 'visible') return;
    reading = new AbortController();
    void read(reading.signal);
  };
  update();
  document.addEventListener('visibilitychange', update);
  return () => {
    document.removeEventListener('visibilitychange', update);
    reading?.abort();
  };
}

/** Read the feed until stopped, and connect again after a pause when the connection is lost. */
async function follow(
  share: (message: Message) => void,
  lastId: () => string | undefined,
  signal: AbortSignal,
  fetchFeed: typeof fetch,
): Promise<void> {
  for (let failures = 0; !signal.aborted; failures++) {
    await readOnce(share, lastId(), signal, fetchFeed, () => {
      failures = 0;
    });
    await pause(reconnectPause(failures), signal);
  }
}

async function readOnce(
  share: (message: Message) => void,
  lastId: string | undefined,
  signal: AbortSignal,
  fetchFeed: typeof fetch,
  onOpen: () => void,
): Promise<void> {
  try {
    await readStream('/api/changes', {
      ...(lastId !== undefined && { headers: { 'Last-Event-ID': lastId } }),
      signal,
      fetch: fetchFeed,
      onOpen,
      onEvents: (events) => {
        for (const { id, data } of events) {
          const frame = JSON.parse(data) as Frame;
          share({ id, isReachable: true, frame: isGreeting(frame) ? { ...frame, reset: true } : frame });
        }
        if (events.length === 0) share({ isReachable: true });
      },
    });
  } catch (error) {
    if (!(error instanceof StreamRefused)) {
      if (!signal.aborted) share({ isReachable: false });
    } else if (error.response.status === 401) {
      share({ isReachable: true, frame: { reset: true } }); // requests then lead to the sign-in page
    } else if (await isOfProxy(error.response)) share({ isReachable: false });
  }
}

/** Whether a frame is the first of a new reader: changes between the page's requests and this frame may be missing. */
function isGreeting(frame: Frame): boolean {
  return frame.jobs === undefined && !frame.many && !frame.reset;
}
