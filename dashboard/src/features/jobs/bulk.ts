/** Actions on all jobs that match a filter. */

import type { BulkAction, BulkProgress, JobFacets, JobFilter, Status } from '../../api/jobs';
import { count, counted } from '../../lib/format';

export const BULK_ACTIONS: readonly BulkAction[] = ['retry', 'cancel'];

/** Jobs that one action may concern, as the API says. */
export const MOST_JOBS = 10_000;

const CONCERNED: Record<BulkAction, readonly Status[]> = { retry: ['failed'], cancel: ['waiting', 'active'] };

/** The statuses of the matching jobs that an action changes. */
export function concerned(action: BulkAction, filter: JobFilter): Status[] {
  return CONCERNED[action].filter((status) => !filter.status || filter.status.includes(status));
}

/** The number of matching jobs that an action changes. facets: counts for all statuses. */
export function concernedCount(action: BulkAction, filter: JobFilter, facets: JobFacets | undefined): number {
  const statuses: readonly string[] = concerned(action, filter);
  return (facets?.status ?? [])
    .filter(({ value }) => statuses.includes(value))
    .reduce((sum, each) => sum + each.count, 0);
}

/** The filter that the engine gets: no job in another status matches it. */
export function bulkFilter(action: BulkAction, filter: JobFilter): JobFilter {
  return { ...filter, status: concerned(action, filter) };
}

const STATES: Record<BulkAction, string> = { retry: 'failed', cancel: 'waiting and running' };
const DONE: Record<BulkAction, string> = { retry: 'queued again', cancel: 'cancelled' };

/** The effect of an action. */
export const ACTION_NOTES: Record<BulkAction, string> = {
  retry: 'Failed jobs are queued again. Claude Code and Codex resume their session if its workspace still exists.',
  cancel: 'Running agents are stopped with all their processes. Their changes so far stay available.',
};

/** An action in words, such as "Retry 9 failed jobs". */
export function bulkWords(action: BulkAction, jobs: number): string {
  return `${action === 'retry' ? 'Retry' : 'Cancel'} ${counted(jobs, `${STATES[action]} job`)}`;
}

/** The outcome of an action in words. It leaves out jobs that have changed since they were counted. */
export function outcomeWords({ action, jobs, changed }: Pick<BulkProgress, 'action' | 'jobs' | 'changed'>): string {
  if (changed === jobs) return `${counted(jobs, 'job')} ${DONE[action]}.`;
  const others = action === 'retry' ? 'had been retried or deleted meanwhile' : 'had ended meanwhile';
  return `${count(changed)} of ${counted(jobs, 'job')} ${DONE[action]}. The others ${others}.`;
}
