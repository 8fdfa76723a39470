import { QueryClient, QueryObserver } from '@tanstack/react-query';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import type * as Client from './client';
import type * as Live from './live';

const HEALTHY = '{"status": "ok"}';
const cut = () => new ReadableStream({ start: (stream) => stream.error(new TypeError('network error')) });
let content: () => BodyInit = () => HEALTHY;
let requests = 0;
let api: typeof Client;
let live: typeof Live;
const stops: (() => void)[] = [];

beforeEach(async () => {
  vi.resetModules(); // the time of the last recovery
  api = await import('./client');
  live = await import('./live');
  vi.useFakeTimers();
  content = () => HEALTHY;
  requests = 0;
  vi.stubGlobal('fetch', () => {
    requests++;
    return Promise.resolve(new Response(content(), { headers: { 'Content-Type': 'application/json' } }));
  });
});
afterEach(() => {
  for (const stop of stops.splice(0)) stop();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** Observe queries of the engine's health as a page does, while the feed answers each 5 seconds. */
function observe(count: number): QueryClient {
  const queries = new QueryClient({
    defaultOptions: {
      queries: {
        retry: (failures, error) => failures < 2 && error instanceof api.ApiError && error.isTemporary,
        retryDelay: 400,
      },
    },
  });
  const queryFn = () => api.body(api.client.GET('/health', { baseUrl: 'http://127.0.0.1' }));
  for (let query = 0; query < count; query++)
    stops.push(new QueryObserver(queries, { queryKey: [query], queryFn }).subscribe(() => undefined));
  stops.push(live.onRecovery(() => live.refetchFailed(queries)));
  const pings = setInterval(() => api.reportReachable(true), 5_000);
  stops.push(
    () => clearInterval(pings),
    () => queries.clear(),
  );
  return queries;
}

const statuses = (queries: QueryClient) =>
  queries
    .getQueryCache()
    .getAll()
    .map(({ state }) => state.status);

test.each([
  ['cut', cut],
  ['not JSON', () => '<h1>Sign in</h1>'],
])('answers that stay %s are requested seldom', async (_, broken) => {
  const queries = observe(2);
  await vi.advanceTimersByTimeAsync(1_000);
  content = broken;
  void queries.refetchQueries();
  await vi.advanceTimersByTimeAsync(5_000);
  expect(statuses(queries)).toEqual(['error', 'error']);
  requests = 0;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(requests).toBeLessThanOrEqual(30); // 2 queries with 3 requests, in at most 5 recoveries
});

test('failed queries are read again once the engine answers', async () => {
  content = cut;
  const queries = observe(2);
  await vi.advanceTimersByTimeAsync(4_000);
  expect(statuses(queries)).toEqual(['error', 'error']);
  content = () => HEALTHY;
  await vi.advanceTimersByTimeAsync(70_000);
  expect(statuses(queries)).toEqual(['success', 'success']);
});

test('a query that is being read is not restarted', async () => {
  const queries = observe(1);
  await vi.advanceTimersByTimeAsync(1_000);
  content = cut; // a query with data can be cancelled and restarted
  void queries.refetchQueries();
  await vi.advanceTimersByTimeAsync(3_000);
  expect(statuses(queries)).toEqual(['error']);
  let answer: (() => void) | undefined;
  vi.stubGlobal('fetch', () => {
    requests++;
    return new Promise((resolve) => {
      answer = () => resolve(new Response(HEALTHY, { headers: { 'Content-Type': 'application/json' } }));
    });
  });
  requests = 0;
  live.refetchFailed(queries);
  live.refetchFailed(queries);
  expect(requests).toBe(1);
  answer?.();
  await vi.advanceTimersByTimeAsync(0);
  expect(statuses(queries)).toEqual(['success']);
});
