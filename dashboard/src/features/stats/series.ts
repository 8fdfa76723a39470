/** Series as columns of one table, as charts need them. */

import type { Series } from '../../api/stats';

export interface Columns {
  /** Unix seconds, ascending. */
  times: number[];
  names: string[];
  /** One list per name. null: there is no value at that time. */
  values: (number | null)[][];
}

export const ALL = 'all';

/** The API's own series in words. */
const WORDS: Readonly<Record<string, string>> = {
  completed: 'Completed',
  failed: 'Failed',
  cancelled: 'Cancelled',
  input: 'Input',
  output: 'Output',
  cache_read: 'Read from a cache',
  [ALL]: 'All jobs',
};

/** A series in words. by: the field whose values have a series each, if any. */
export function seriesInWords(name: string, by: string | undefined): string {
  return by === undefined ? (WORDS[name] ?? name) : name;
}

/** Align series that have values at different times. Series without any value are left out. */
export function columns(series: readonly Series[]): Columns {
  const used = series.filter((each) => each.points.some(([, value]) => value !== 0));
  const times = [...new Set(series.flatMap((each) => each.points.map(([time]) => time)))].sort((a, b) => a - b);
  const values = used.map((each) => {
    const byTime = new Map(each.points.map(([time, value]) => [time, value]));
    return times.map((time) => byTime.get(time) ?? null);
  });
  return { times, names: used.map((each) => Object.values(each.labels).join(', ') || ALL), values };
}

/**
 * Values as heights of a stack: each list contains the sum of itself and those after it, so that the first is drawn
 * behind the others.
 */
export function stacked(values: readonly (number | null)[][]): number[][] {
  const heights: number[][] = [];
  for (const list of values.toReversed()) {
    const below = heights[0];
    heights.unshift(list.map((value, index) => (value ?? 0) + (below?.[index] ?? 0)));
  }
  return heights;
}

/** The sum of a list, without missing values. */
export function total(values: readonly (number | null)[]): number {
  return values.reduce((sum: number, value) => sum + (value ?? 0), 0);
}
