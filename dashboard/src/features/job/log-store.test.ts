import { expect, onTestFinished, test, vi } from 'vitest';

import { errorOf } from '../../api/client';
import type { JobEvent } from '../../api/events';
import { LogStore, MAX_PAGES, PAGE, TAIL } from './log-store';

const line = (seq: number): JobEvent => ({
  id: `1-${seq}`,
  attempt: 1,
  at: '2030-01-01T00:00:00Z',
  kind: 'log',
  text: `line ${seq}`,
});

const lines = (first: number, last: number) =>
  Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => line(first + index));

function storeOf(last: number) {
  const source = {
    after: vi.fn((seq: number, limit: number) => Promise.resolve(lines(seq + 1, Math.min(last, seq + limit)))),
    tail: vi.fn((limit: number) => Promise.resolve(lines(Math.max(1, last - limit + 1), last))),
  };
  return { store: new LogStore('ir-1', 1, source), source };
}

test('a short log needs one request', async () => {
  const { store, source } = storeOf(3);
  await store.open();
  expect([store.count, store.row(0)?.text, store.row(2)?.text, source.tail.mock.calls.length]).toEqual([
    3,
    'line 1',
    'line 3',
    1,
  ]);
  expect(source.after).not.toHaveBeenCalled();
});

test.each([PAGE - 1, PAGE, PAGE + 1, TAIL - 1, TAIL, TAIL + 1, 999_999, 1_000_000])(
  'one request shows the end of a log of %d lines',
  async (last) => {
    const { store, source } = storeOf(last);
    await store.open();
    store.need(last - 1, last);
    expect([store.count, store.row(last - 1)?.text]).toEqual([last, `line ${last}`]);
    expect(source.tail.mock.calls.length + source.after.mock.calls.length).toBe(1);
  },
);

test('no row of a page that is known in part counts as empty', async () => {
  const { store } = storeOf(TAIL + 3);
  await store.open();
  expect(store.row(4)).toBeUndefined();
});

test('any row of a long log is read without the rows before it', async () => {
  const { store, source } = storeOf(1_000_000);
  await store.open();
  expect(store.count).toBe(1_000_000);
  store.need(812_440, 812_480);
  await vi.waitFor(() => expect(store.row(812_440)?.text).toBe('line 812441'));
  expect(source.after).toHaveBeenCalledTimes(1);
});

test('memory holds a bounded number of pages', async () => {
  const { store } = storeOf(PAGE * 100);
  await store.open();
  for (let page = 0; page < 100; page++) {
    store.need(page * PAGE, page * PAGE + 1);
    await vi.waitFor(() => expect(store.row(page * PAGE)).toBeDefined(), { interval: 1 });
  }
  store.need(0, 1);
  const held = Array.from({ length: 100 }, (_, page) => store.row(page * PAGE)).filter((row) => row !== undefined);
  expect(held.length).toBeLessThanOrEqual(MAX_PAGES + 1);
});

test('live events extend the log, also across pages', async () => {
  const { store } = storeOf(PAGE - 1);
  await store.open();
  store.append([line(PAGE), line(PAGE + 1)]);
  expect([store.count, store.row(PAGE - 1)?.text, store.row(PAGE)?.text]).toEqual([
    PAGE + 1,
    `line ${PAGE}`,
    `line ${PAGE + 1}`,
  ]);
});

test('live events of another attempt are ignored', async () => {
  const { store } = storeOf(1);
  await store.open();
  store.append([{ ...line(2), attempt: 2 }]);
  expect(store.count).toBe(1);
});

test('a failed request is reported, and the next one can succeed', async () => {
  const tail = vi
    .fn()
    .mockRejectedValueOnce(new Error('lost'))
    .mockResolvedValue([line(1)]);
  const store = new LogStore('ir-1', 1, { after: () => Promise.resolve([]), tail });
  await store.open();
  expect(String(store.error)).toContain('lost');
  await store.open();
  expect([store.error, store.count]).toEqual([undefined, 1]);
});

test('a log that could not be opened is opened again after a pause, until it is closed', async () => {
  vi.useFakeTimers();
  try {
    const tail = vi.fn().mockRejectedValue(new Error('unreachable'));
    const store = new LogStore('ir-1', 1, { after: () => Promise.resolve([]), tail });
    await store.open();
    await vi.advanceTimersByTimeAsync(1_000);
    expect([tail.mock.calls.length, store.error]).toEqual([2, new Error('unreachable')]);
    tail.mockResolvedValue([line(1)]);
    await vi.advanceTimersByTimeAsync(2_000); // the pause doubles
    expect([tail.mock.calls.length, store.error, store.count]).toEqual([3, undefined, 1]);

    const closed = new LogStore('ir-1', 1, { after: () => Promise.resolve([]), tail });
    tail.mockRejectedValue(new Error('unreachable'));
    await closed.open();
    closed.close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(tail).toHaveBeenCalledTimes(4);
  } finally {
    vi.useRealTimers();
  }
});

test('after a failed request no page is requested for a while, and then once', async () => {
  vi.useFakeTimers();
  try {
    const { store, source } = storeOf(10_000);
    await store.open();
    source.after.mockRejectedValue(new Error('unreachable'));
    store.subscribe(() => store.need(0, 1)); // as each render does
    store.need(0, 1);
    await vi.advanceTimersByTimeAsync(999);
    expect([source.after.mock.calls.length, store.error]).toEqual([1, new Error('unreachable')]);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(source.after).toHaveBeenCalledTimes(2); // the pause doubles
    source.after.mockResolvedValue(lines(1, PAGE));
    await vi.advanceTimersByTimeAsync(2_000);
    expect([source.after.mock.calls.length, store.error, store.row(0)?.text]).toEqual([3, undefined, 'line 1']);
  } finally {
    vi.useRealTimers();
  }
});

test('a store that was closed reads on for its next reader', async () => {
  const { store, source } = storeOf(10_000);
  await store.open();
  source.after.mockImplementationOnce(
    (_seq, _limit, signal?: AbortSignal) =>
      new Promise((_, reject) => signal?.addEventListener('abort', () => reject(new Error('aborted')))),
  );
  store.need(0, 1);
  store.close();
  await vi.waitFor(() => {
    store.need(0, 1);
    expect([store.row(0)?.text, store.error]).toEqual(['line 1', undefined]);
  });
});

test.each([
  [404, 1],
  [503, 3],
])('a log that is refused with %d is requested %d times in some seconds', async (status, count) => {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const { store, source } = storeOf(3);
  source.tail.mockRejectedValue(errorOf(status, { error: 'no log', code: 'refused', details: [] }));
  await store.open();
  await vi.advanceTimersByTimeAsync(3_500);
  expect(source.tail).toHaveBeenCalledTimes(count);
  store.close();
});
