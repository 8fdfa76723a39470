/** The filters of the list of jobs that was open last, and the state of a link, for the way back from a job. */

import type { RegisteredRouter, RouteById } from '@tanstack/react-router';

type JobsSearch = RouteById<RegisteredRouter['routeTree'], '/app/jobs'>['types']['fullSearchSchema'];

declare module '@tanstack/react-router' {
  interface HistoryState {
    /** A link leads back to a list, which then looks as it was left. */
    isWayBack?: true;
  }
}

export const WAY_BACK = { isWayBack: true } as const;

let last: JobsSearch = {};

export function rememberJobs(search: JobsSearch): void {
  last = search;
}

export function lastJobs(): JobsSearch {
  return last;
}
