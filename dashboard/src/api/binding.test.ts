/** Sessions are bound to the secret of the origin, by tabs of one browser and an engine. */

import { beforeEach, expect, test, vi } from 'vitest';

const ORIGIN = 'http://engine.test';
vi.stubGlobal(
  'Request',
  class extends Request {
    constructor(input: string | Request, init?: RequestInit) {
      super(typeof input === 'string' ? new URL(input, ORIGIN) : input, init);
    }
  },
);
const { readSession, signOut } = await import('./session'); // with the Request of a page
const { fetchFile } = await import('./client');
const { followEvents } = await import('./events');

const USER = { id: 'user-1', name: 'Ada', email: null };
const HEADER = 'Labrats-Session-Secret';
const OTHER = 'f'.repeat(32);

/** The engine, with one session. */
const engine = {
  secret: undefined as string | undefined,
  bindings: 0,
  failure: undefined as number | undefined,
  requests: [] as Request[],
  beforeReading: (): unknown => undefined,
  beforeBinding: (): unknown => undefined,
};
const json = (content: unknown, status = 200) =>
  new Response(status === 204 ? null : JSON.stringify(content), {
    status,
    headers: { 'Content-Type': 'application/json' },
  });
const refusal = (status: number) => json({ error: 'no', code: 'no', details: [] }, status);

async function answer(input: Request | string, init?: RequestInit): Promise<Response> {
  const request = new Request(input, init);
  engine.requests.push(request);
  await Promise.resolve();
  const path = new URL(request.url).pathname;
  if (path === '/api/auth/me') engine.beforeReading();
  if (path === '/api/auth/bind') engine.beforeBinding();
  const secret = request.headers.get(HEADER) ?? undefined;
  const accepts = engine.secret === undefined || engine.secret === secret;
  if (path === '/api/auth/me')
    return json({ user: accepts ? USER : null, bound: accepts && engine.secret !== undefined });
  if (!accepts) return refusal(401);
  if (path === '/api/auth/bind') {
    if (engine.failure !== undefined) return refusal(engine.failure);
    engine.secret = secret;
    engine.bindings++;
    return json(null, 204);
  }
  return path.endsWith('/events') ? new Response('data: {"done":true}\n\n') : json({});
}

/** The storage of the browser. isBlocked: it stores nothing. */
const storage = { texts: new Map<string, string>(), isBlocked: false };
const stored = () => storage.texts.get('labrats.session');

beforeEach(() => {
  Object.assign(engine, {
    secret: undefined,
    bindings: 0,
    failure: undefined,
    requests: [],
    beforeReading: () => undefined,
    beforeBinding: () => undefined,
  });
  Object.assign(storage, { texts: new Map(), isBlocked: false });
  vi.stubGlobal('fetch', answer);
  vi.stubGlobal('navigator', {});
  vi.stubGlobal('window', {
    get localStorage() {
      if (storage.isBlocked) throw new DOMException('blocked', 'SecurityError');
      return {
        getItem: (name: string) => storage.texts.get(name) ?? null,
        setItem: (name: string, text: string) => storage.texts.set(name, text),
        removeItem: (name: string) => storage.texts.delete(name),
      };
    },
  });
});

test('a new session is bound to a secret, which later requests have', async () => {
  expect(await readSession()).toMatchObject({ user: USER, bound: true });
  expect(engine.secret).toMatch(/^[0-9a-f]{32}$/);
  expect(stored()).toBe(engine.secret);
  expect(await readSession()).toMatchObject({ user: USER, bound: true });
  expect(engine.bindings).toBe(1);
});

test('a next session is bound to the same secret, which sign-out forgets', async () => {
  await readSession();
  const first = stored();
  engine.secret = undefined; // the user has signed in again
  expect(await readSession()).toMatchObject({ user: USER, bound: true });
  expect([engine.secret, engine.bindings]).toEqual([first, 2]);
  await signOut();
  expect(stored()).toBeUndefined();
});

test('without storage a session stays unbound, and goes on', async () => {
  storage.isBlocked = true;
  expect(await readSession()).toMatchObject({ user: USER, bound: false });
  expect(engine.bindings).toBe(0);
});

test.each([403, 404, 503])(
  'a session that cannot be bound with status %d goes on, and is bound later',
  async (status) => {
    engine.failure = status;
    expect(await readSession()).toMatchObject({ user: USER, bound: false });
    engine.failure = undefined;
    expect(await readSession()).toMatchObject({ user: USER, bound: true });
  },
);

test('without the secret that was stored nobody is signed in, until the next session', async () => {
  await readSession();
  storage.texts.clear();
  expect(await readSession()).toMatchObject({ user: null });
  expect(engine.bindings).toBe(1);
  engine.secret = undefined;
  expect(await readSession()).toMatchObject({ user: USER, bound: true });
});

test('a damaged secret is replaced', async () => {
  storage.texts.set('labrats.session', 'dämaged');
  expect(await readSession()).toMatchObject({ user: USER, bound: true });
});

test('tabs that load at once share the session', async () => {
  const all = await Promise.all([readSession(), readSession(), readSession()]);
  for (const me of all) expect(me).toMatchObject({ user: USER, bound: true });
});

test('a tab whose secret comes second reads the session again', async () => {
  engine.beforeBinding = () => {
    engine.secret = OTHER; // of another tab, which was faster and has stored it last
    storage.texts.set('labrats.session', OTHER);
  };
  expect(await readSession()).toMatchObject({ user: USER, bound: true });
  expect(stored()).toBe(OTHER);
});

test('a tab that reads the session while another one binds it reads it again', async () => {
  engine.beforeReading = () => {
    engine.secret = OTHER;
    storage.texts.set('labrats.session', OTHER);
  };
  expect(await readSession()).toMatchObject({ user: USER, bound: true });
  expect(engine.requests.length).toBe(2);
});

test('a tab whose secret comes first keeps it', async () => {
  engine.beforeBinding = () => storage.texts.set('labrats.session', OTHER); // of another tab, which is slower
  expect(await readSession()).toMatchObject({ user: USER, bound: true });
  expect(stored()).toBe(engine.secret);
  expect(await readSession()).toMatchObject({ user: USER, bound: true });
});

test('tabs bind in turn', async () => {
  const held: (() => void)[] = [];
  const request = async (name: string, run: () => Promise<unknown>) => {
    expect(name).toBe('labrats-bind');
    await new Promise<void>((resolve) => held.push(resolve));
    return run();
  };
  vi.stubGlobal('navigator', { locks: { request } });
  const reading = readSession();
  await vi.waitFor(() => expect(held.length).toBe(1));
  expect(stored()).toBeUndefined();
  held[0]?.();
  expect(await reading).toMatchObject({ user: USER, bound: true });
});

test('files and streams are requested with the secret', async () => {
  await readSession();
  expect((await fetchFile('/api/jobs/ir-1/bundle')).size).toBe(2);
  await new Promise<void>((resolve) => {
    followEvents('ir-1', { attempt: 1, seq: 7 }, { onEvents: () => undefined, onDone: resolve });
  });
  const [file, stream] = engine.requests.slice(-2);
  expect([file?.headers.get(HEADER), stream?.headers.get(HEADER)]).toEqual([engine.secret, engine.secret]);
  expect(stream?.url).toBe(`${ORIGIN}/api/jobs/ir-1/events?after=1-7`);
  expect(stream?.headers.get('Accept')).toBe('text/event-stream');
});

test('a file that the engine refuses is an error', async () => {
  engine.secret = 'another';
  await expect(fetchFile('/api/jobs/ir-1/bundle')).rejects.toMatchObject({ status: 401 });
});
