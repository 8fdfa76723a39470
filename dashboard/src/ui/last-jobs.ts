/** The filters of the list of jobs that was open last, for the way back from a job. */

import type { RegisteredRouter, RouteById } from '@tanstack/react-router';

type JobsSearch = RouteById<RegisteredRouter['routeTree'], '/app/jobs'>['types']['fullSearchSchema'];

let last: JobsSearch = {};

export function rememberJobs(search: JobsSearch): void {
  last = search;
}

export function lastJobs(): JobsSearch {
  return last;
}
