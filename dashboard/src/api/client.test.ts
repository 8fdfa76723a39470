import { afterEach, expect, test, vi } from 'vitest';

import { body, client, errorOf, onReachable, type ApiError } from './client';

const JSON_HEADERS = { 'Content-Type': 'application/json' };

function answerWith(content: BodyInit | null, status = 200): boolean[] {
  vi.stubGlobal('fetch', () => Promise.resolve(new Response(content, { status, headers: JSON_HEADERS })));
  const reports: boolean[] = [];
  stops.push(onReachable((isReachable) => reports.push(isReachable)));
  return reports;
}

const stops: (() => void)[] = [];
afterEach(() => {
  for (const stop of stops.splice(0)) stop();
  vi.unstubAllGlobals();
});

/** A body whose connection breaks. */
const cut = () => new ReadableStream({ start: (stream) => stream.error(new TypeError('network error')) });

/** The error of a request of the engine's health, which is refused. */
const refusal = () =>
  body(client.GET('/health', { baseUrl: 'http://127.0.0.1' })).then(
    () => expect.fail('no error'),
    (error: unknown) => error as ApiError,
  );

test.each([502, 503, 504])('an answer %d of a proxy is an outage', async (status) => {
  const reports = answerWith('<h1>Bad Gateway</h1>', status);
  expect(await refusal()).toMatchObject({ status, code: 'unreachable', isTemporary: true });
  expect(reports).toEqual([false]);
});

test('an error of the engine has its own sentence and code', async () => {
  const reports = answerWith(JSON.stringify({ error: 'the queue is full', code: 'full', details: [] }), 503);
  expect(await refusal()).toMatchObject({ status: 503, code: 'full', message: 'the queue is full' });
  expect(reports).toEqual([true]);
});

test('an answer that is cut is an outage, reported once', async () => {
  const reports = answerWith(cut());
  expect(await refusal()).toMatchObject({ status: 0, code: 'unreachable', isTemporary: true });
  expect(reports).toEqual([false]);
});

test('a whole answer that is not JSON is an error of its own, not an outage', async () => {
  const reports = answerWith('<h1>Sign in</h1>');
  expect(await refusal()).toMatchObject({ status: 0, code: 'unreadable', isTemporary: true });
  expect(reports).toEqual([true]);
});

test('an aborted request reports nothing', async () => {
  const aborted = AbortSignal.abort();
  const reports: boolean[] = [];
  vi.stubGlobal('fetch', () =>
    Promise.resolve(
      new Response(new ReadableStream({ start: (stream) => stream.error(aborted.reason) }), { status: 503 }),
    ),
  );
  stops.push(onReachable((isReachable) => reports.push(isReachable)));
  await expect(body(client.GET('/health', { baseUrl: 'http://127.0.0.1', signal: aborted }))).rejects.toMatchObject({
    name: 'AbortError',
  });
  expect(reports).toEqual([]);
});

test('an unknown refusal is named by its status', () => {
  expect(errorOf(418, null).message).toBe('The engine answered with status 418.');
});
