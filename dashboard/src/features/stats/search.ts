import type { Field } from '../../api/stats';
import { oneOf } from '../../lib/search';

export const WINDOWS = ['24h', '7d', '30d', '90d'] as const;
export const FIELDS = ['model', 'agentRole', 'repo', 'type'] as const satisfies readonly Field[];

export interface StatsSearch {
  window?: (typeof WINDOWS)[number];
  by?: Field;
}

export function validateStatsSearch(search: Record<string, unknown>): StatsSearch {
  const [window, by] = [oneOf(search['window'], WINDOWS), oneOf(search['by'], FIELDS)];
  return { ...(window && { window }), ...(by && { by }) };
}
