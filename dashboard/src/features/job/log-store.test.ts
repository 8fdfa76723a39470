import { expect, test, vi } from 'vitest';

import type { JobEvent } from '../../api/events';
import { LogStore, MAX_PAGES, PAGE } from './log-store';

const line = (seq: number): JobEvent => ({ id: `1-${seq}`, attempt: 1, at: '2030-01-01T00:00:00Z', kind: 'log', text: `line ${seq}` });

function storeOf(last: number) {
  const fetch = vi.fn((after: number, limit: number) =>
    Promise.resolve(Array.from({ length: Math.max(0, Math.min(limit, last - after)) }, (_, index) => line(after + index + 1))),
  );
  return { store: new LogStore('ir-1', 1, fetch), fetch };
}

test('a short log needs one request', async () => {
  const { store, fetch } = storeOf(3);
  await store.open();
  expect([store.count, store.row(0)?.text, store.row(2)?.text, fetch.mock.calls.length]).toEqual([3, 'line 1', 'line 3', 1]);
});

test('any row of a long log is read without the rows before it', async () => {
  const { store, fetch } = storeOf(1_000_000);
  await store.open();
  expect(store.count).toBe(1_000_000);
  fetch.mockClear();
  store.need(812_440, 812_480);
  await vi.waitFor(() => expect(store.row(812_440)?.text).toBe('line 812441'));
  expect(fetch).toHaveBeenCalledTimes(1);
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
  expect([store.count, store.row(PAGE - 1)?.text, store.row(PAGE)?.text]).toEqual([PAGE + 1, `line ${PAGE}`, `line ${PAGE + 1}`]);
});

test('live events of another attempt are ignored', async () => {
  const { store } = storeOf(1);
  await store.open();
  store.append([{ ...line(2), attempt: 2 }]);
  expect(store.count).toBe(1);
});

test('a failed request is reported, and the next one can succeed', async () => {
  const fetch = vi.fn().mockRejectedValueOnce(new Error('lost')).mockResolvedValue([line(1)]);
  const store = new LogStore('ir-1', 1, fetch);
  await store.open();
  expect(String(store.error)).toContain('lost');
  await store.open();
  expect([store.error, store.count]).toEqual([undefined, 1]);
});
