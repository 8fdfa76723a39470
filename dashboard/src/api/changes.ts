/** The effect of changes on the cached queries. */

import type { Query, QueryClient, QueryKey } from '@tanstack/react-query';

import type { Frame } from './feed';
import { jobQuery, type JobPage } from './jobs';

/**
 * Queries to read again. keys: first parts of their keys. jobs: ids of jobs. isAll: everything that the feed covers.
 *
 * isReset: changes of an unknown time are missing, so that lists are read again to their end.
 */
export interface Stale {
  keys: ReadonlySet<string>;
  jobs: ReadonlySet<string>;
  isAll: boolean;
  isReset: boolean;
}

/** Queries that depend on jobs, by the first part of their keys. */
const OF_JOBS = ['facets', 'overview', 'chain', 'queue', 'stats', 'job'];

/** Queries that depend on a kind of resource. */
const OF_KINDS: Record<string, readonly string[]> = {
  agents: ['agents', 'agent'],
  instructions: ['instructions', 'instruction'],
  config: ['defaults'],
  'webhook-sources': ['sources', 'source'],
  'ai-models': ['ai-models', 'queue'],
  'api-keys': ['api-keys'],
};

/** Queries of one job, by the first part of their keys, which its id follows. */
const OF_ONE_JOB: ReadonlySet<string> = new Set(['job', 'attempts', 'report']);

const COVERED: ReadonlySet<string> = new Set([...OF_JOBS, ...OF_ONE_JOB, ...Object.values(OF_KINDS).flat()]);

export function keysOf(frame: Frame): Stale {
  const changed = [...(frame.jobs ?? []).map((job) => job.id), ...(frame.gone ?? [])];
  const ofJobs = changed.length > 0 ? OF_JOBS : [];
  return {
    keys: new Set([...ofJobs, ...(frame.kinds ?? []).flatMap((kind) => OF_KINDS[kind] ?? [])]),
    jobs: new Set(changed),
    isAll: frame.reset === true || frame.many === true,
    isReset: frame.reset === true,
  };
}

/** Put changed jobs into the queries that show them. The usage of a running attempt is known to the detail alone. */
export function patchJobs(queries: QueryClient, { jobs = [] }: Frame): void {
  for (const item of jobs) {
    queries.setQueryData(
      jobQuery(item.id).queryKey,
      (before) =>
        before && {
          ...before,
          ...item,
          usage: item.status === 'active' && before.status === 'active' ? before.usage : item.usage,
        },
    );
    if (item.chainId === null) continue;
    queries.setQueryData<JobPage>(
      ['chain', item.chainId],
      (before) => before && { ...before, jobs: before.jobs.map((job) => (job.id === item.id ? item : job)) },
    );
  }
}

/** Queries of resources that this tab has removed. */
const removed = new WeakSet<Query>();

/**
 * Remove a resource by `request`. The feed does not have its queries read again, since its page is shown until the next
 * one is loaded. If the request fails, they are read at once. queryKey: the first parts of their keys.
 */
export async function removeShown(
  queries: QueryClient,
  queryKey: QueryKey,
  request: () => Promise<void>,
): Promise<void> {
  const shown = queries.getQueryCache().findAll({ queryKey });
  for (const query of shown) removed.add(query);
  try {
    await request();
  } catch (error) {
    for (const query of shown) removed.delete(query);
    void queries.invalidateQueries({ queryKey }); // the feed may have reported changes meanwhile
    throw error;
  }
}

/** Read stale queries again, those of the page at once. */
export function refresh(queries: QueryClient, stale: Stale): void {
  void queries.invalidateQueries({
    predicate: (query) => !removed.has(query) && isStale(query.queryKey, query.state.data, stale),
  });
}

export function isStale([name, id]: QueryKey, data: unknown, stale: Stale): boolean {
  if (typeof name !== 'string') return false;
  if (stale.isAll) return COVERED.has(name);
  if (OF_ONE_JOB.has(name))
    return typeof id === 'string' && (stale.jobs.has(id) || (stale.jobs.size > 0 && isWaiting(data)));
  return stale.keys.has(name);
}

/** Whether a query has a waiting job: its place in the queue depends on other jobs. */
function isWaiting(data: unknown): boolean {
  return typeof data === 'object' && data !== null && 'status' in data && data.status === 'waiting';
}
