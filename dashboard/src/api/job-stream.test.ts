import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { followEvents, type JobEvent } from './events';

/** The connections of a page, in order. */
const connections: { url: string; writer: WritableStreamDefaultWriter<Uint8Array>; signal: AbortSignal }[] = [];
const statuses: number[] = [];
const send = (text: string) => void connections.at(-1)?.writer.write(new TextEncoder().encode(text));
const event = (id: string) => `id: ${id}\ndata: {"id":"${id}","kind":"log"}\n\n`;

const seen: string[] = [];
const states: string[] = [];
let isDone = false;
let stop: () => void = () => undefined;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  vi.stubGlobal('navigator', {});
  vi.stubGlobal('fetch', (url: string, init: { signal: AbortSignal }) => {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const writer = writable.getWriter();
    init.signal.addEventListener('abort', () => void writer.abort(init.signal.reason).catch(() => undefined));
    connections.push({ url, writer, signal: init.signal });
    const status = statuses.shift() ?? 200;
    return Promise.resolve(new Response(status === 200 ? readable : '', { status }));
  });
  connections.length = seen.length = states.length = 0;
  isDone = false;
  stop = followEvents(
    'ir-1',
    { attempt: 1, seq: 2 },
    {
      onEvents: (events: JobEvent[]) => seen.push(...events.map(({ id }) => id)),
      onDone: () => (isDone = true),
      onState: (state) => states.push(state),
    },
  );
});
afterEach(() => {
  stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** Wait for a connection. */
const connected = (count: number) =>
  vi.waitFor(async () => {
    await vi.advanceTimersByTimeAsync(1_000);
    expect(connections.length).toBe(count);
  });

test('events are complete, and the last ones come before the end', async () => {
  await connected(1);
  send(event('1-3'));
  send(event('1-4') + 'data: {"done":true,"status":"completed"}\n\n');
  await vi.waitFor(() => expect(isDone).toBe(true));
  expect(seen).toEqual(['1-3', '1-4']);
  expect(connections[0]?.signal.aborted).toBe(true);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(connections.length).toBe(1);
});

test.each(['lost', 'ended'])('a stream that is %s resumes after its last event', async (how) => {
  await connected(1);
  send(event('1-3'));
  await vi.waitFor(async () => {
    await vi.advanceTimersByTimeAsync(300);
    expect(seen).toEqual(['1-3']);
  });
  void (how === 'lost' ? connections[0]?.writer.abort(new TypeError('lost')) : connections[0]?.writer.close());
  await connected(2);
  expect(connections[1]?.url).toBe('/api/jobs/ir-1/events?after=1-3');
  await vi.waitFor(() => expect(states).toEqual(['live', 'reconnecting', 'live']));
});

test('a silent connection counts as lost', async () => {
  await connected(1);
  await vi.advanceTimersByTimeAsync(30_000);
  send(': ping\n\n');
  await new Promise((resolve) => setImmediate(resolve));
  await vi.advanceTimersByTimeAsync(30_000);
  expect(connections.length).toBe(1);
  await vi.advanceTimersByTimeAsync(12_000);
  expect(connections.length).toBe(2);
});

test('a stream that is refused is requested again', async () => {
  await connected(1);
  statuses.push(401);
  void connections[0]?.writer.close();
  await connected(3);
  await vi.waitFor(() => expect(states).toEqual(['live', 'reconnecting', 'reconnecting', 'live']));
});

test('nothing is requested after the end of the page', async () => {
  await connected(1);
  stop();
  expect(connections[0]?.signal.aborted).toBe(true);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(connections.length).toBe(1);
});
