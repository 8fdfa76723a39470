/** The state of the list of jobs, as it stands in the URL. */

import { STATUSES, type JobFilter, type JobOrder, type Status } from '../../api/jobs';
import { oneOf, text, texts } from '../../lib/search';

export const WINDOWS = { '1h': 1, '24h': 24, '7d': 168, '30d': 720 } as const;
export type Window = keyof typeof WINDOWS;
const WINDOW_NAMES = Object.keys(WINDOWS) as Window[];

export interface JobsSearch {
  status?: Status[];
  q?: string;
  model?: string;
  agent?: string;
  repo?: string;
  code?: string;
  owner?: string;
  window?: Window;
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
  for (const name of ['q', 'model', 'agent', 'repo', 'code', 'owner', 'job', 'bulk'] as const) {
    const value = text(search[name]);
    if (value !== undefined) result[name] = value;
  }
  const window = oneOf(search['window'], WINDOW_NAMES);
  if (window) result.window = window;
  if (text(search['sort']) === 'oldest') result.sort = 'oldest';
  return result;
}

/** The API's filter. now: rounded, so that the same search gives the same filter for a while. */
export function filterOf(search: JobsSearch, now: number): JobFilter {
  const { status, q, model, agent, repo, code, owner, window } = search;
  return {
    ...(status && { status }),
    ...(q && { q }),
    ...(model && { model }),
    ...(agent && { agentRole: agent }),
    ...(repo && { repo }),
    ...(code && { failedCode: code }),
    ...(owner && { owner }),
    ...(window && { from: new Date(now - WINDOWS[window] * 3_600_000).toISOString() }),
  };
}

export function hasFilters(search: JobsSearch): boolean {
  return Object.keys(search).some((name) => name !== 'sort' && name !== 'job' && name !== 'bulk');
}
