/** Figures over time, and comparisons of jobs by a field. */

import { queryOptions } from '@tanstack/react-query';

import { daysAgo, MINUTE_MS } from '../lib/times';
import { body, client, type Schemas } from './client';

export type Series = Schemas['SeriesView'];
export type BreakdownRow = Schemas['BreakdownRow'];
export type Metric = Schemas['Timeseries']['metric'];
export type Field = 'model' | 'agentRole' | 'repo' | 'type';

/** The sum of the known costs of jobs, null if none is known, and the number of jobs whose cost is unknown. */
export type Costs = Pick<BreakdownRow, 'costUsd' | 'unknownCosts'>;

export function sumOfCosts(rows: readonly Costs[] = []): Costs {
  return rows.reduce<Costs>(
    (sum, { costUsd, unknownCosts }) => ({
      costUsd: costUsd === null ? sum.costUsd : (sum.costUsd ?? 0) + costUsd,
      unknownCosts: sum.unknownCosts + unknownCosts,
    }),
    { costUsd: null, unknownCosts: 0 },
  );
}

/** by: a series for each frequent value of a field; undefined for the API's own series, such as by status. */
export const timeseriesQuery = (metric: Metric, window: string, by: Field | undefined) =>
  queryOptions({
    queryKey: ['timeseries', metric, window, by],
    queryFn: async ({ signal }): Promise<Series[]> =>
      (
        await body(
          client.GET('/api/stats/timeseries', { params: { query: { metric, window, ...(by && { by }) } }, signal }),
        )
      ).series as Series[],
    placeholderData: (previous) => previous,
  });

/** Jobs that have ended in the last `days`, by a field, with their tokens and cost. */
export const breakdownQuery = (by: Field, days: number) =>
  queryOptions({
    queryKey: ['stats', 'breakdown', by, days],
    queryFn: async ({ signal }) =>
      (await body(client.GET('/api/stats/breakdown', { params: { query: { by, from: daysAgo(days) } }, signal }))).rows,
    placeholderData: (previous) => previous,
    refetchInterval: MINUTE_MS,
  });
