import { STATUSES, type Status } from '../../api/jobs';
import type { Field } from '../../api/stats';
import { oneOf } from '../../lib/search';

export const WINDOWS = ['24h', '7d', '30d', '90d'] as const;
export const FIELDS = ['model', 'agentRole', 'repo', 'type'] as const satisfies readonly Field[];

export type Window = (typeof WINDOWS)[number];

export interface StatsSearch {
  window?: Window;
  by?: Field;
}

export function validateStatsSearch(search: Record<string, unknown>): StatsSearch {
  const [window, by] = [oneOf(search['window'], WINDOWS), oneOf(search['by'], FIELDS)];
  return { ...(window && { window }), ...(by && { by }) };
}

/** Filters of the list of jobs. */
export interface JobsSearch {
  ended: Window;
  status?: Status[];
  model?: string;
  agent?: string;
  repo?: string;
  type?: string;
}

const NAMES = { model: 'model', agentRole: 'agent', repo: 'repo', type: 'type' } as const;

/**
 * The filter of the jobs that ended in a window and have a value: of a field, or else a status. Undefined for other
 * series, such as kinds of tokens.
 */
export function jobsOf(by: Field | undefined, value: string, window: Window): JobsSearch | undefined {
  if (by) return { [NAMES[by]]: value, ended: window };
  const status = STATUSES.find((each) => each === value);
  return status && { status: [status], ended: window };
}
