/** The state of the list of jobs, as it stands in the URL. */

import { STATUSES, type JobFilter, type JobOrder, type Status } from '../../api/jobs';
import { oneOf, text, texts } from '../../lib/search';

const HOUR = 3_600_000;

/** Lengths of time in hours. */
export const WINDOWS = { '1h': 1, '24h': 24, '7d': 168, '30d': 720, '90d': 2160 } as const;
export type Window = keyof typeof WINDOWS;
const WINDOW_NAMES = Object.keys(WINDOWS) as Window[];

/** Filters that have no field on the page. */
export const EXACT = [
  'type',
  'source',
  'provider',
  'chainId',
  'from',
  'to',
  'endedFrom',
  'endedTo',
] as const satisfies readonly (keyof JobFilter)[];

export interface JobsSearch extends Partial<Record<(typeof EXACT)[number], string>> {
  status?: Status[];
  q?: string;
  model?: string;
  agent?: string;
  repo?: string;
  code?: string;
  owner?: string;
  /** The time up to now in which jobs were created. */
  window?: Window;
  /** The time up to now in which they ended. */
  ended?: Window;
  sort?: JobOrder;
  /** The job that is open beside the list. */
  job?: string;
  /** The action on many jobs whose progress is shown. */
  bulk?: string;
}

export function validateJobsSearch(search: Record<string, unknown>): JobsSearch {
  const result: JobsSearch = {};
  const status = texts(search['status'], STATUSES);
  if (status.length > 0) result.status = status;
  for (const name of ['q', 'model', 'agent', 'repo', 'code', 'owner', 'job', 'bulk', ...EXACT] as const) {
    const value = text(search[name]);
    if (value !== undefined) result[name] = value;
  }
  for (const name of ['window', 'ended'] as const) {
    const window = oneOf(search[name], WINDOW_NAMES);
    if (window) result[name] = window;
  }
  if (text(search['sort']) === 'oldest') result.sort = 'oldest';
  return result;
}

/** The API's filter. now: rounded, so that the same search gives the same filter for a while. */
export function filterOf(search: JobsSearch, now: number): JobFilter {
  const { status, q, model, agent, repo, code, owner, window, ended } = search;
  const before = (hours: number) => new Date(now - hours * HOUR).toISOString();
  return {
    ...(status && { status }),
    ...(q && { q }),
    ...(model && { model }),
    ...(agent && { agentRole: agent }),
    ...(repo && { repo }),
    ...(code && { failedCode: code }),
    ...(owner && { owner }),
    ...(window && { from: before(WINDOWS[window]) }),
    ...(ended && { endedFrom: before(WINDOWS[ended]) }),
    ...Object.fromEntries(EXACT.flatMap((name) => (search[name] ? [[name, search[name]]] : []))),
  };
}

/** Jobs of a queue that are listed in its order: as many as one request for their places may name. */
export const MOST_IN_QUEUE = 100;

/** Return whether a search shows a short queue of one model, which is listed in its order. total: of its jobs. */
export function isShortQueue({ status, model, sort }: JobsSearch, total: number | undefined): boolean {
  const isOfWaiting = status?.length === 1 && status[0] === 'waiting';
  return isOfWaiting && model !== undefined && sort === undefined && total !== undefined && total <= MOST_IN_QUEUE;
}

/** A name for the list that a search shows. */
export function listKey(search: JobsSearch): string {
  return JSON.stringify({ ...search, job: undefined, bulk: undefined });
}

export function hasFilters(search: JobsSearch): boolean {
  return Object.keys(search).some((name) => name !== 'sort' && name !== 'job' && name !== 'bulk');
}
