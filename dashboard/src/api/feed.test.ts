import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { onReachable } from './client';
import { PING_MS, SILENCE_MS, startFeed, type Frame } from './feed';

/** Locks of one browser, as far as the feed uses them. */
class Locks {
  private holder: { end: (error: Error) => void } | undefined;
  private readonly waiting: (() => void)[] = [];

  request = async (
    _: string,
    { steal = false, signal }: { steal?: boolean; signal?: AbortSignal },
    run: () => Promise<void>,
  ): Promise<void> => {
    if (steal) this.holder?.end(new DOMException('stolen', 'AbortError'));
    else if (this.holder) {
      await new Promise<void>((resolve, reject) => {
        this.waiting.push(resolve);
        signal?.addEventListener('abort', () => {
          this.waiting.splice(this.waiting.indexOf(resolve), 1);
          reject(new DOMException('aborted', 'AbortError'));
        });
      });
    }
    const ended = new Promise<void>((_resolve, reject) => {
      this.holder = { end: reject };
    });
    const own = this.holder;
    await Promise.race([run(), ended]).finally(() => {
      if (this.holder !== own) return;
      this.holder = undefined;
      this.waiting.shift()?.();
    });
  };
}

interface Connection {
  lastId: string | null;
  send: (text: string) => void;
  end: () => void;
  signal: AbortSignal | null | undefined;
}

const connections: Connection[] = [];
const answer = { status: 200 };
const connect = ((_: string, init: RequestInit) => {
  const stream = new TransformStream<Uint8Array, Uint8Array>();
  const writer = stream.writable.getWriter();
  init.signal?.addEventListener('abort', () => void writer.abort(init.signal?.reason));
  connections.push({
    lastId: new Headers(init.headers).get('Last-Event-ID'),
    send: (text) => void writer.write(new TextEncoder().encode(text)).catch(() => undefined),
    end: () => void writer.close(),
    signal: init.signal,
  });
  return Promise.resolve(new Response(answer.status === 200 ? stream.readable : null, { status: answer.status }));
}) as unknown as typeof fetch;

const stops: (() => void)[] = [];
function tab(locks: Locks, since?: string): Frame[] {
  const frames: Frame[] = [];
  stops.push(
    startFeed((frame) => frames.push(frame), {
      since,
      locks: locks as unknown as LockManager,
      isVisible: () => true,
      fetch: connect,
    }),
  );
  return frames;
}
const open = () => connections.filter(({ signal }) => !signal?.aborted);

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'] });
  connections.length = 0;
  answer.status = 200;
});
afterEach(() => {
  for (const stop of stops.splice(0)) stop();
  vi.useRealTimers();
});

test('one tab reads, and all tabs hear the changes', async () => {
  const locks = new Locks();
  const [first, second] = [tab(locks), tab(locks)];
  await vi.waitFor(() => expect(connections.length).toBe(1));
  connections[0]?.send('id: f-1\ndata: {"jobs":[],"gone":["ir-1"],"kinds":[],"counts":{}}\n\n');
  await vi.waitFor(() => expect([first.length, second.length]).toEqual([1, 1]));
  expect(second[0]?.gone).toEqual(['ir-1']);
});

test('the first frame asks for a refresh, since changes before it may be missing', async () => {
  const frames = tab(new Locks());
  await vi.waitFor(() => expect(connections.length).toBe(1));
  connections[0]?.send('id: f-1\ndata: {"counts":{"active":1}}\n\n');
  await vi.waitFor(() => expect(frames).toEqual([{ counts: { active: 1 }, reset: true }]));
});

test('a lost connection resumes after the last frame', async () => {
  const frames = tab(new Locks());
  await vi.waitFor(() => expect(connections.length).toBe(1));
  connections[0]?.send('id: f-7\ndata: {"jobs":[],"gone":[],"kinds":[],"counts":{}}\n\n');
  await vi.waitFor(() => expect(frames.length).toBe(1));
  connections[0]?.end();
  await vi.waitFor(async () => {
    await vi.advanceTimersByTimeAsync(1_000);
    expect(connections.length).toBe(2);
  });
  expect(connections[1]?.lastId).toBe('f-7');
});

test('another tab takes over when the first one is closed, and resumes after its last frame', async () => {
  const locks = new Locks();
  tab(locks);
  const second = tab(locks);
  await vi.waitFor(() => expect(connections.length).toBe(1));
  connections[0]?.send('id: f-3\ndata: {"jobs":[],"gone":[],"kinds":[],"counts":{}}\n\n');
  await vi.waitFor(() => expect(second.length).toBe(1));
  stops.shift()?.();
  await vi.waitFor(() => expect(connections.length).toBe(2));
  expect(connections[1]?.lastId).toBe('f-3');
  expect(open().length).toBe(1);
});

test('a visible tab steals the lock from a tab that is silent', async () => {
  const locks = new Locks();
  void locks.request('labrats-feed', {}, () => new Promise(() => undefined)).catch(() => undefined); // a frozen tab
  tab(locks);
  await vi.advanceTimersByTimeAsync(SILENCE_MS - 2_000);
  expect(connections.length).toBe(0);
  await vi.advanceTimersByTimeAsync(4_000);
  await vi.waitFor(() => expect(connections.length).toBe(1));
});

test('a feed without changes is not silent', async () => {
  const locks = new Locks();
  tab(locks);
  tab(locks);
  await vi.waitFor(() => expect(connections.length).toBe(1));
  for (let second = 0; second < 30; second++) {
    await vi.advanceTimersByTimeAsync(1_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(connections.length).toBe(1);
});

test('a refused session asks for a refresh, which leads to the sign-in page', async () => {
  answer.status = 401;
  const frames = tab(new Locks());
  await vi.waitFor(() => expect(frames).toEqual([{ reset: true }]));
});

test.each([502, 503, 504])('a proxy that answers %d in place of the engine makes it unreachable', async (status) => {
  answer.status = status;
  const reports: boolean[] = [];
  stops.push(onReachable((isReachable) => reports.push(isReachable)));
  tab(new Locks());
  await vi.waitFor(() => expect(reports).toEqual([false]));
  await vi.advanceTimersByTimeAsync(PING_MS);
  expect(reports.at(-1)).toBe(false);
});

test('a feed begins at the id that the page has', async () => {
  const frames = tab(new Locks(), 'f-5');
  await vi.waitFor(() => expect(connections[0]?.lastId).toBe('f-5'));
  expect(frames).toEqual([]);
});
