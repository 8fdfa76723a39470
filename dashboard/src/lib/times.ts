/** Lengths of time in milliseconds, and times up to which lists and figures go back. */

export const MINUTE_MS = 60_000;
export const HOUR_MS = 60 * MINUTE_MS;
export const DAY_MS = 24 * HOUR_MS;

/** The end of a minute, in milliseconds: requests of one minute are the same. */
export function endOfMinute(now = Date.now()): number {
  return Math.ceil(now / MINUTE_MS) * MINUTE_MS;
}

/** The time some days ago, as the API takes it. */
export function daysAgo(days: number, now = Date.now()): string {
  return new Date(endOfMinute(now) - days * DAY_MS).toISOString();
}
