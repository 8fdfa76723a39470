/** The rows of the list of jobs: pages in order, and the jobs that arrived since. */

import type { JobFilter, JobItem, JobOrder, JobPage } from '../../api/jobs';

export interface Rows {
  jobs: readonly JobItem[];
  /** Jobs that are newer than the list, newest first, at most MOST_NEWER. They wait until the reader asks for them. */
  newer: readonly JobItem[];
  /** The cursor of the next page; null after the last one, undefined before the first. */
  next: string | null | undefined;
}

/** Newer jobs that are held. Where there are more, some are missing, and the list has to be read again. */
export const MOST_NEWER = 500;

export const NO_ROWS: Rows = { jobs: [], newer: [], next: undefined };

/** Append a page. Jobs that are in the list already keep their place. */
export function withPage(rows: Rows, page: JobPage): Rows {
  const known = ids(rows);
  return {
    jobs: [...updated(rows.jobs, page.jobs), ...page.jobs.filter((job) => !known.has(job.id))],
    newer: updated(rows.newer, page.jobs),
    next: page.next,
  };
}

/** Merge a fresh first page: changes appear in place, jobs that it lacks leave the list, and new jobs wait above it. */
export function withFirstPage(rows: Rows, page: JobPage): Rows {
  const listed = new Set(page.jobs.map((job) => job.id));
  const last = page.jobs.at(-1);
  const isCovered = (job: JobItem) => page.next === null || (last !== undefined && job.createdAt > last.createdAt);
  return withNewest(
    withChanges(
      rows,
      [],
      new Set(
        [...rows.jobs, ...rows.newer].filter((job) => isCovered(job) && !listed.has(job.id)).map((job) => job.id),
      ),
    ),
    page,
  );
}

/** Merge jobs in the order of a first page: changes appear in place, and new jobs wait above the list. */
export function withNewest(rows: Rows, page: JobPage): Rows {
  const known = ids(rows);
  const arrived = page.jobs.filter((job) => !known.has(job.id));
  const first = rows.jobs[0];
  // A job that is older than the first row was not created but has come to match the filter: it joins the list in
  // order.
  const newer = arrived.filter((job) => first === undefined || job.createdAt > first.createdAt);
  const joined = arrived.filter((job) => first !== undefined && job.createdAt <= first.createdAt);
  return {
    jobs: joined.length > 0 ? inOrder([...updated(rows.jobs, page.jobs), ...joined]) : updated(rows.jobs, page.jobs),
    newer: [...newer, ...updated(rows.newer, page.jobs)].slice(0, MOST_NEWER),
    next: rows.next,
  };
}

/** Update jobs in place. gone: ids of jobs that no longer match. */
export function withChanges(rows: Rows, changed: readonly JobItem[], gone: ReadonlySet<string> = new Set()): Rows {
  const remaining = gone.size > 0 ? rows.jobs.filter((job) => !gone.has(job.id)) : rows.jobs;
  const waiting = gone.size > 0 ? rows.newer.filter((job) => !gone.has(job.id)) : rows.newer;
  return { ...rows, jobs: updated(remaining, changed), newer: updated(waiting, changed) };
}

/**
 * Apply changes of the feed: rows change in place, and jobs that have come to match arrive as in a fresh page.
 *
 * Jobs that lie beyond the loaded rows are left to later pages.
 */
export function withFeed(
  rows: Rows,
  changed: readonly JobItem[],
  gone: readonly string[],
  filter: JobFilter,
  order: JobOrder,
): Rows {
  const known = ids(rows);
  const left = new Set([...gone, ...changed.filter((job) => !matches(job, filter)).map((job) => job.id)]);
  const current = withChanges(rows, changed, left);
  if (filter.q) return current; // the engine knows which other jobs have the text
  const arrived = changed
    .filter((job) => !known.has(job.id) && matches(job, filter) && isWithin(rows, job, order))
    .toSorted((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
  if (arrived.length === 0) return current;
  if (order === 'newest') return withNewest(current, { jobs: arrived, next: rows.next ?? null });
  return {
    ...current,
    jobs: [...current.jobs, ...arrived].toSorted((a, b) =>
      a.createdAt < b.createdAt ? -1 : a.createdAt > b.createdAt ? 1 : 0,
    ),
  };
}

/** Whether a job belongs between the loaded rows, or before the first one of the newest. */
function isWithin(rows: Rows, job: JobItem, order: JobOrder): boolean {
  const last = rows.jobs.at(-1);
  if (rows.next === null || (last === undefined && order === 'newest')) return true;
  return last !== undefined && (order === 'newest' ? job.createdAt > last.createdAt : job.createdAt < last.createdAt);
}

/** Whether a job matches a filter, as the engine decides. A search for text is left to the engine. */
export function matches(job: JobItem, filter: JobFilter): boolean {
  const {
    status,
    model,
    provider,
    agentRole,
    repo,
    failedCode,
    owner,
    type,
    source,
    chainId,
    from,
    to,
    endedFrom,
    endedTo,
  } = filter;
  const pairs = [
    [model, job.model],
    [provider, job.provider],
    [agentRole, job.agentRole],
    [repo, job.repo],
    [failedCode, job.failedCode],
    [owner, job.owner],
    [type, job.name],
    [source, job.source],
    [chainId, job.chainId],
  ];
  return (
    (!status || status.includes(job.status)) &&
    pairs.every(([wanted, value]) => !wanted || wanted === value) &&
    isBetween(job.createdAt, from, to) &&
    isBetween(job.finishedAt, endedFrom, endedTo)
  );
}

/** Whether a time, null for none yet, lies from one to before another. */
function isBetween(time: string | null, from: string | undefined, to: string | undefined): boolean {
  if (time === null) return !from && !to;
  return (!from || Date.parse(time) >= Date.parse(from)) && (!to || Date.parse(time) < Date.parse(to));
}

/** Put the newer jobs into the list. */
export function withNewerShown(rows: Rows): Rows {
  return rows.newer.length > 0 ? { ...rows, jobs: [...rows.newer, ...rows.jobs], newer: [] } : rows;
}

/**
 * Take the jobs that are newer than `first` out of a list of the newest, so that they wait above what is being read.
 */
export function withNewerHeld(rows: Rows, first: JobItem | undefined): Rows {
  const newer = first ? rows.jobs.filter((job) => job.createdAt > first.createdAt) : [];
  return { ...rows, jobs: rows.jobs.slice(newer.length), newer: newer.slice(0, MOST_NEWER) };
}

function ids(rows: Rows): Set<string> {
  return new Set([...rows.newer, ...rows.jobs].map((job) => job.id));
}

function updated(jobs: readonly JobItem[], changed: readonly JobItem[]): readonly JobItem[] {
  const byId = new Map(changed.map((job) => [job.id, job]));
  if (!jobs.some((job) => byId.has(job.id))) return jobs;
  return jobs.map((job) => byId.get(job.id) ?? job);
}

function inOrder(jobs: readonly JobItem[]): readonly JobItem[] {
  return jobs.toSorted((a, b) => (a.createdAt < b.createdAt ? 1 : a.createdAt > b.createdAt ? -1 : 0));
}
