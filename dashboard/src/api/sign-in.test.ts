/** Sessions begin with the secret of the origin: a browser and an engine. */

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
const { grantIn, readSession, signIn, signOut } = await import('./session'); // with the Request of a page
const { fetchFile } = await import('./client');
const { followEvents } = await import('./events');

const USER = { id: 'user-1', name: 'Ada', email: null };
const HEADER = 'Labrats-Session-Secret';
const OTHER = 'f'.repeat(32);
const LINK = { token: 'test-token' };

/** The engine. secret: that of its session, if any. */
const engine = {
  isSignedIn: false,
  secret: undefined as string | undefined,
  requests: [] as Request[],
  beforeSignIn: (): unknown => undefined,
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
  const secret = request.headers.get(HEADER) ?? undefined;
  if (request.method === 'POST' && /link|callback/.test(path)) {
    engine.beforeSignIn();
    Object.assign(engine, { isSignedIn: true, secret });
    return json(null, 204);
  }
  const accepts = engine.isSignedIn && (engine.secret === undefined || engine.secret === secret);
  if (path === '/api/auth/me') return json({ user: accepts ? USER : null });
  if (!accepts) return refusal(401);
  return path.endsWith('/events') ? new Response('data: {"done":true}\n\n') : json({});
}

/** The storage of the browser. isBlocked: it stores nothing. */
const storage = { texts: new Map<string, string>(), isBlocked: false };
const stored = () => storage.texts.get('labrats.session');

beforeEach(() => {
  Object.assign(engine, { isSignedIn: false, secret: undefined, requests: [], beforeSignIn: () => undefined });
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

test.each([
  ['', undefined],
  ['#top', undefined],
  ['#token=a%2Bb', { token: 'a+b' }],
  ['#state=s&code=c&iss=https%3A%2F%2Flogin.test', { state: 's', code: 'c', iss: 'https://login.test' }],
  ['#state=s&error=access_denied&error_description=x', { state: 's', error: 'access_denied' }],
  ['#error=server_error', { state: '', error: 'server_error' }],
])('the fragment %j signs in by %j', (fragment, grant) => {
  expect(grantIn(fragment)).toEqual(grant);
});

test.each([LINK, { state: 's', code: 'c', iss: 'https://login.test' }])(
  'a session by %j begins with a secret, which later requests have',
  async (grant) => {
    await signIn(grant);
    expect(engine.secret).toMatch(/^[0-9a-f]{32}$/);
    expect(stored()).toBe(engine.secret);
    expect(Object.fromEntries(new URL(engine.requests[0]?.url ?? '').searchParams)).toEqual(grant);
    expect(await readSession()).toMatchObject({ user: USER });
  },
);

test('a next session begins with the same secret, which sign-out forgets', async () => {
  await signIn(LINK);
  const first = engine.secret;
  await signIn(LINK);
  expect([engine.secret, stored()]).toEqual([first, first]);
  await signOut();
  expect(stored()).toBeUndefined();
});

test('without storage a session begins without a secret', async () => {
  storage.isBlocked = true;
  await signIn(LINK);
  expect(engine.secret).toBeUndefined();
  expect(await readSession()).toMatchObject({ user: USER });
});

test('without the secret that was stored nobody is signed in, until the next session', async () => {
  await signIn(LINK);
  storage.texts.clear();
  expect(await readSession()).toMatchObject({ user: null });
  await signIn(LINK);
  expect(await readSession()).toMatchObject({ user: USER });
});

test('a damaged secret is replaced', async () => {
  storage.texts.set('labrats.session', 'dämaged');
  await signIn(LINK);
  expect(stored()).toMatch(/^[0-9a-f]{32}$/);
});

test('the secret of the last session is stored, not that of a tab that signs in at the same moment', async () => {
  engine.beforeSignIn = () => storage.texts.set('labrats.session', OTHER);
  await signIn(LINK);
  expect(stored()).toBe(engine.secret);
  expect(await readSession()).toMatchObject({ user: USER });
});

test('files and streams are requested with the secret', async () => {
  await signIn(LINK);
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
  await expect(fetchFile('/api/jobs/ir-1/bundle')).rejects.toMatchObject({ status: 401 });
});
