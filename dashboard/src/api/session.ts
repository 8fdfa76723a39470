/** The signed-in user, and the way to the sign-in page. */

import { queryOptions, type QueryClient } from '@tanstack/react-query';

import { readStored, writeStored } from '../lib/storage';
import { body, client, isFinal, type Schemas } from './client';
import { forgetSecret, HEADER, keepSecret, sessionSecret, storedSecret } from './session-secret';
import { browserLocks } from './stream-slots';

type Me = Schemas['Me'];

/**
 * Read the session. If another tab has stored the secret after the request was sent, it may have bound the session
 * before the engine answered: then it is read again, with the secret.
 */
async function readMe(signal?: AbortSignal): Promise<Me> {
  const sent = storedSecret();
  const me = await body(client.GET('/api/auth/me', { signal: signal ?? null }));
  return me.user || storedSecret() === sent ? me : readMe(signal);
}

/** Return who is signed in, and bind a new session to the secret of this origin first. */
export async function readSession(signal?: AbortSignal): Promise<Me> {
  const me = await readMe(signal);
  if (!me.user || me.bound) return me;
  const locks = browserLocks(); // tabs bind in turn, so that a later one has the secret of the first
  return locks ? locks.request('labrats-bind', () => bind(me)) : bind(me);
}

/** Bind the session. It stays as it is if the browser stores nothing, or while the engine cannot bind it. */
async function bind(me: Me): Promise<Me> {
  const secret = sessionSecret();
  if (secret === undefined) return me;
  try {
    await body(client.POST('/api/auth/bind', { params: { header: { [HEADER]: secret } } }));
  } catch (error) {
    return isFinal(error) ? readMe() : me; // another tab may have bound it
  }
  keepSecret(secret);
  return { ...me, bound: true };
}

export const sessionQuery = queryOptions({
  queryKey: ['session'],
  queryFn: ({ signal }) => readSession(signal),
  staleTime: 5 * 60_000,
});

/**
 * Return who is signed in. A user of an earlier answer is returned at once and read again meanwhile, so that pages open
 * without the engine.
 *
 * The requests of a page notice a session that has ended.
 */
export async function currentSession(queries: QueryClient): Promise<Me> {
  const reading = queries.query(sessionQuery);
  const known = queries.getQueryData(sessionQuery.queryKey);
  if (!known?.user) return reading;
  reading.catch(() => undefined); // the next page reads it again
  return known;
}

export async function signOut(): Promise<void> {
  await body(client.POST('/api/auth/logout'));
  forgetSecret();
}

const NEXT = 'labrats.next';
const NEXT_LIFETIME = 15 * 60_000;

/** The name of an OpenID provider: its host, and its path if it has one. */
export function issuerName(issuer: string): string {
  return issuer.replace(/^https?:\/\//, '').replace(/\/+$/, '');
}

/** Remember the page to open after sign-in, also in another tab: a link from the engine leads to `/`. */
export function rememberNext(path: string, now = Date.now()): void {
  if (isOwnPath(path)) writeStored('localStorage', NEXT, JSON.stringify({ path, at: now }));
}

/**
 * Return the page to open in place of `href`: the remembered one in place of `/`, else none. The remembered page is
 * forgotten, since a page of a signed-in user opens.
 */
export function pageInsteadOf(href: string, now = Date.now()): string | undefined {
  const stored = readStored('localStorage', NEXT);
  writeStored('localStorage', NEXT, undefined);
  return stored === null || href !== '/' ? undefined : readNext(stored, now);
}

export function readNext(stored: string, now: number): string | undefined {
  try {
    const next = JSON.parse(stored) as { path?: unknown; at?: unknown };
    const isCurrent = typeof next.at === 'number' && now - next.at < NEXT_LIFETIME;
    return isCurrent && typeof next.path === 'string' && isOwnPath(next.path) ? next.path : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a path leads to a page of this origin, other than `/` and the sign-in page. */
export function isOwnPath(path: string): boolean {
  return /^\/(?![/\\])[^\\\u0000-\u001f]*$/.test(path) && path !== '/' && !/^\/(login|api)(\/|\?|$)/.test(path);
}
