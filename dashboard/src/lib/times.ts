/** Lengths of time in milliseconds, and times up to which lists and figures go back. */

import { serverNow } from './server-time';

export const MINUTE_MS = 60_000;
export const HOUR_MS = 60 * MINUTE_MS;
export const DAY_MS = 24 * HOUR_MS;

/** The end of a minute, in milliseconds: requests of one minute are the same. */
export function endOfMinute(now = serverNow()): number {
  return Math.ceil(now / MINUTE_MS) * MINUTE_MS;
}

/** The time some days ago, as the API takes it. */
export function daysAgo(days: number, now = serverNow()): string {
  return new Date(endOfMinute(now) - days * DAY_MS).toISOString();
}
