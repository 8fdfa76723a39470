/** The one client of the engine's API. Its types are generated from the OpenAPI document. */

import createClient from 'openapi-fetch';

import { noteServerTime } from '../lib/server-time';
import type { components, paths } from './schema';
import { sessionHeaders } from './session-secret';

export type Schemas = components['schemas'];

/** An answer of the API that is an error: its sentence for people, and its code for programs. */
export class ApiError extends Error {
  override readonly name = 'ApiError';

  constructor(
    /** Zero without a readable answer. */
    readonly status: number,
    readonly code: string,
    message: string,
    readonly details: Schemas['Detail'][] = [],
  ) {
    super(message);
  }

  /** Whether the same request may succeed later. */
  get isTemporary(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Whether an error is the last word on a request. Else the request may have had its effect, or may have it later. */
export function isFinal(error: unknown): boolean {
  return error instanceof ApiError && !error.isTemporary;
}

/** Return whether the error says that the resource does not exist. */
export function isMissing(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404;
}

/** The engine did not answer. */
export const UNREACHABLE = 'unreachable';

type Listener = (reachable: boolean) => void;
const listeners = new Set<Listener>();

/** Call `listener` after each request, with whether the engine has answered it. Returns a function that stops this. */
export function onReachable(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function reportReachable(reachable: boolean): void {
  for (const listener of listeners) listener(reachable);
}

/**
 * Send a request and read its answer whole. Each request reports once whether the engine answers: an answer that is cut
 * is none.
 */
async function fetchAndReport(
  request: Request,
  read: (response: Response) => Promise<ArrayBuffer | Blob> = (response) => response.arrayBuffer(),
): Promise<Response> {
  for (const [name, value] of Object.entries(sessionHeaders()))
    if (!request.headers.has(name)) request.headers.set(name, value);
  let response: Response;
  let content: ArrayBuffer | Blob;
  try {
    response = await fetch(request);
    content = await read(response);
  } catch (error) {
    if (request.signal.aborted) throw error;
    reportReachable(false);
    throw errorOf(0, null);
  }
  noteServerTime(response.headers.get('date'));
  const size = content instanceof Blob ? content.size : content.byteLength;
  const answer = new Response(size > 0 ? content : null, response);
  const isReachable = !(await isOfProxy(answer));
  reportReachable(isReachable);
  if (!isReachable) throw errorOf(response.status, null);
  return answer;
}

/** Throws ApiError if the engine does not answer. */
export async function checkReachable(): Promise<void> {
  await fetchAndReport(new Request('/health'));
}

/** Fetch a file, which the browser may store outside of the page's memory. Throws ApiError. */
export async function fetchFile(url: string): Promise<Blob> {
  const answer = await fetchAndReport(new Request(url), (response) => response.blob());
  if (!answer.ok) throw errorOf(answer.status, await answer.json().catch(() => null));
  return answer.blob();
}

/** The statuses that a proxy sends in place of an engine that does not answer. */
const PROXY_STATUSES: readonly number[] = [502, 503, 504];

/** Return whether an answer comes from a proxy that cannot reach the engine. The engine's own errors have a code. */
export function isProxyError(status: number, body: unknown): boolean {
  return PROXY_STATUSES.includes(status) && !isErrorBody(body);
}

/** Return whether an answer whose body is not read yet comes from such a proxy. */
export async function isOfProxy(response: Response): Promise<boolean> {
  return (
    PROXY_STATUSES.includes(response.status) &&
    isProxyError(
      response.status,
      await response
        .clone()
        .json()
        .catch(() => null),
    )
  );
}

export const client = createClient<paths>({ baseUrl: '/', fetch: (request) => fetchAndReport(request) });

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The body of a successful answer. Throws ApiError for any other, and for one that is not JSON. */
export async function body<T>(answer: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await answer.catch((reason: unknown) => {
    if (reason instanceof SyntaxError)
      throw new ApiError(
        0,
        'unreadable',
        'The answer cannot be read: it is not JSON. It may come from a proxy, such as one that asks you to sign in.',
      );
    throw reason;
  });
  if (response.ok) return data as T;
  throw errorOf(response.status, error);
}

/** The error that a failed answer describes. status: 0 if there was no answer. */
export function errorOf(status: number, body: unknown): ApiError {
  if (status === 0 || isProxyError(status, body))
    return new ApiError(status, UNREACHABLE, 'The engine does not answer. It may be restarting.');
  if (isErrorBody(body)) return new ApiError(status, body.code, body.error, body.details);
  return new ApiError(status, 'unknown', `The engine answered with status ${status}.`);
}

function isErrorBody(value: unknown): value is Schemas['ErrorBody'] {
  return typeof value === 'object' && value !== null && 'error' in value && 'code' in value;
}
