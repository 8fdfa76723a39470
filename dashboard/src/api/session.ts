/** The signed-in user, and the way to the sign-in page. */

import { queryOptions, type QueryClient } from '@tanstack/react-query';

import { readStored, writeStored } from '../lib/storage';
import { body, client, type Schemas } from './client';
import { forgetSecret, HEADER, keepSecret, sessionSecret } from './session-secret';

type Me = Schemas['Me'];

/** Return who is signed in. */
export async function readSession(signal?: AbortSignal): Promise<Me> {
  return body(client.GET('/api/auth/me', { signal: signal ?? null }));
}

/** The token of a login link, or the response of the OpenID provider. */
export type Grant = { token: string } | { state: string; code?: string; iss?: string; error?: string };

/** Return what the engine has put into the fragment of the sign-in page's URL. */
export function grantIn(fragment: string): Grant | undefined {
  const { token, state, code, iss, error } = Object.fromEntries(new URLSearchParams(fragment.replace(/^#/, '')));
  if (token !== undefined) return { token };
  if (state === undefined && error === undefined) return undefined;
  const given = { ...(code !== undefined && { code }), ...(iss !== undefined && { iss }) };
  return { state: state ?? '', ...given, ...(error !== undefined && { error }) };
}

/**
 * Sign in. The session is accepted only with the secret of this origin; without storage there is none, and the cookie
 * alone is accepted.
 */
export async function signIn(grant: Grant): Promise<void> {
  const secret = sessionSecret();
  const header = secret === undefined ? {} : { [HEADER]: secret };
  await body(
    'token' in grant
      ? client.POST('/api/auth/link', { params: { query: grant, header } })
      : client.POST('/api/auth/oidc/callback', { params: { query: grant, header } }),
  );
  if (secret !== undefined) keepSecret(secret);
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

/** Return the remembered page, which is not forgotten. */
export function rememberedPage(now = Date.now()): string | undefined {
  const stored = readStored('localStorage', NEXT);
  return stored === null ? undefined : readNext(stored, now);
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
