/** Jobs: lists, counts, details and actions. */

import { queryOptions, type QueryClient } from '@tanstack/react-query';

import { daysAgo, MINUTE_MS } from '../lib/times';
import { ApiError, body, client, isFinal, type Schemas } from './client';

export type JobItem = Schemas['JobItem'];
export type JobDetail = Schemas['JobDetail'];
export type JobFacets = Schemas['JobFacets'];
export type Status = JobItem['status'];
export type FailedCode = NonNullable<JobItem['failedCode']>;
export type Attempt = Schemas['AttemptView'];
export type Waiting = Schemas['WaitingView'];
export type QueuePlace = Omit<Schemas['WaitingJob'], 'id'>;
export type Usage = Schemas['UsageView'];
export type Rerun = Partial<Schemas['Rerun']>;
export type Submission = Schemas['Submission'];
export type BulkAction = Schemas['Bulk']['action'];
export type BulkProgress = Schemas['BulkProgress'];

export const STATUSES = ['waiting', 'active', 'completed', 'failed', 'cancelled'] as const satisfies readonly Status[];

/** The filters of lists and counts, as the API takes them. */
export interface JobFilter {
  status?: Status[];
  q?: string;
  model?: string;
  agentRole?: string;
  repo?: string;
  failedCode?: string;
  owner?: string;
  type?: string;
  source?: string;
  provider?: string;
  chainId?: string;
  /** The earliest time of creation, and the time before which a job was created. */
  from?: string;
  to?: string;
  /** The same of its end. */
  endedFrom?: string;
  endedTo?: string;
}

export type JobOrder = 'newest' | 'oldest';

export interface JobPage {
  jobs: JobItem[];
  next: string | null;
}

/** The jobs of a page: with their usage and titles, less than 60 KB. */
export const PAGE_SIZE = 75;

export function hasEnded(status: Status): boolean {
  return status !== 'waiting' && status !== 'active';
}

/** Get one page of jobs. cursor: empty for the first page. */
export async function fetchJobs(
  filter: JobFilter,
  cursor: string,
  options: { order?: JobOrder; limit?: number; signal?: AbortSignal; hasResults?: boolean } = {},
): Promise<JobPage> {
  const query = {
    ...filter,
    cursor,
    limit: options.limit ?? PAGE_SIZE,
    sort: options.order ?? 'newest',
    ...(!options.hasResults && { omit: 'result' as const }),
  };
  const page = await body(client.GET('/api/jobs', { params: { query }, signal: options.signal ?? null }));
  return { jobs: page.jobs, next: page.next ?? null };
}

/**
 * Read a job as lists show it; undefined if it is gone. hasResult: with its result, unless that is too long for a list.
 */
export async function fetchItem(
  { id, createdAt }: Pick<JobItem, 'id' | 'createdAt'>,
  signal: AbortSignal,
  hasResult = false,
): Promise<JobItem | undefined> {
  const to = new Date(Date.parse(createdAt) + SECOND_MS).toISOString(); // so that few jobs are searched
  const { jobs } = await fetchJobs({ q: id, from: createdAt, to }, '', {
    limit: SAME_TEXT,
    signal,
    hasResults: hasResult,
  });
  return jobs.find((job) => job.id === id);
}

const SECOND_MS = 1_000;

/** Jobs of one second that may have the id of another one in their title. */
const SAME_TEXT = 5;

/** Numbers of jobs by the values of their fields. Each field is counted without its own filter. */
export const facetsQuery = (query: JobFilter) =>
  queryOptions({
    queryKey: ['facets', query],
    queryFn: ({ signal }) => body(client.GET('/api/jobs/facets', { params: { query }, signal })),
    placeholderData: (previous) => previous,
  });

/**
 * The numbers of jobs that have ended in the last `days`. Its key has no time, so that the numbers stay while the
 * engine is away.
 */
export const endedFacetsQuery = (days: number) =>
  queryOptions({
    queryKey: ['facets', 'ended', days],
    queryFn: ({ signal }) =>
      body(client.GET('/api/jobs/facets', { params: { query: { endedFrom: daysAgo(days) } }, signal })),
    refetchInterval: MINUTE_MS,
  });

export const jobQuery = (id: string) =>
  queryOptions({
    queryKey: ['job', id],
    queryFn: ({ signal }) =>
      body(client.GET('/api/jobs/{job_id}', { params: { path: { job_id: id }, query: { omit: 'result' } }, signal })),
  });

/** The report to GitHub, with what would be written now. */
export const reportQuery = (id: string) =>
  queryOptions({
    queryKey: ['report', id],
    queryFn: ({ signal }) =>
      body(client.GET('/api/jobs/{job_id}/report', { params: { path: { job_id: id } }, signal })),
  });

/** The texts for the agent. */
export const promptQuery = (id: string) =>
  queryOptions({
    queryKey: ['prompt', id],
    queryFn: ({ signal }) =>
      body(client.GET('/api/jobs/{job_id}/prompt', { params: { path: { job_id: id } }, signal })),
    staleTime: Infinity,
  });

/** The result of a job that has completed. It may be large. */
export const resultQuery = (id: string) =>
  queryOptions({
    queryKey: ['result', id],
    queryFn: async ({ signal }) =>
      (await body(client.GET('/api/jobs/{job_id}/result', { params: { path: { job_id: id } }, signal }))).result ??
      null,
    staleTime: Infinity,
    gcTime: 60_000,
  });

/** The result of a job that has completed, as in lists: null if there is none, or if it is too long for a list. */
export const shortResultQuery = (job: Pick<JobItem, 'id' | 'createdAt'>) =>
  queryOptions({
    queryKey: ['result', job.id, 'short'],
    queryFn: async ({ signal }) => (await fetchItem(job, signal, true))?.result ?? null,
    staleTime: Infinity,
    gcTime: 60_000,
  });

export const attemptsQuery = (id: string) =>
  queryOptions({
    queryKey: ['attempts', id],
    queryFn: async ({ signal }) =>
      (await body(client.GET('/api/jobs/{job_id}/attempts', { params: { path: { job_id: id } }, signal }))).attempts,
  });

export const chainQuery = (chainId: string) =>
  queryOptions({
    queryKey: ['chain', chainId],
    queryFn: ({ signal }) => fetchJobs({ chainId }, '', { order: 'oldest', signal }),
  });

/**
 * The places of waiting jobs in their queues, by id. ids: at most 100. Other jobs are left out.
 *
 * part: names the part of the page that asks. Other ids under the same name are asked for with the next change of a
 * job.
 */
export const placesQuery = (ids: readonly string[], part: string = ids.join()) =>
  queryOptions({
    queryKey: ['queue', 'places', part],
    queryFn: ({ signal }) => body(client.GET('/api/queue/jobs', { params: { query: { id: [...ids] } }, signal })),
    select: ({ jobs }): Readonly<Record<string, QueuePlace>> => Object.fromEntries(jobs.map((job) => [job.id, job])),
    enabled: ids.length > 0,
    staleTime: 0,
    placeholderData: (previous) => previous,
  });

/** The address of the changes of an attempt, as a patch in git's format. */
export function patchUrl(id: string, attempt: number): string {
  return `/api/jobs/${encodeURIComponent(id)}/patch?attempt=${attempt}`;
}

/** The address of the commits of an attempt, as a git bundle. */
export function bundleUrl(id: string, attempt: number): string {
  return `/api/jobs/${encodeURIComponent(id)}/bundle?attempt=${attempt}`;
}

export async function cancelJob(id: string): Promise<JobDetail> {
  return body(client.POST('/api/jobs/{job_id}/cancel', { params: { path: { job_id: id } } }));
}

export async function retryJob(id: string): Promise<JobDetail> {
  return body(client.POST('/api/jobs/{job_id}/retry', { params: { path: { job_id: id } } }));
}

export async function publishJob(id: string): Promise<JobDetail> {
  return body(client.POST('/api/jobs/{job_id}/publish', { params: { path: { job_id: id } } }));
}

/** Cancel or retry all jobs that match a filter. expected: their number, as the user has seen it. */
export async function actOnJobs(
  action: BulkAction,
  filter: JobFilter,
  expected: number,
): Promise<Schemas['BulkAccepted']> {
  return body(client.POST('/api/jobs/bulk', { body: { action, filter, expected } }));
}

const PROGRESS_MS = 500;

/** The progress of an action on many jobs, read until all of them are done. */
export const bulkQuery = (id: string) =>
  queryOptions({
    queryKey: ['bulk', id],
    queryFn: ({ signal }) =>
      body(client.GET('/api/jobs/bulk/{action_id}', { params: { path: { action_id: id } }, signal })),
    refetchInterval: ({ state }) => (state.data?.finishedAt || isFinal(state.error) ? false : PROGRESS_MS),
  });

/** Submit a job. key: repeated submissions with the same key create one job. */
export async function submitJob(submission: Submission, key: string): Promise<Schemas['Submitted']> {
  return body(client.POST('/api/jobs/submit', { body: submission, params: { header: { 'Idempotency-Key': key } } }));
}

/** Run a job again as a new one. changes: what differs from the first job. key: as for submitJob. */
export async function rerunJob(id: string, changes: Rerun, key: string): Promise<Schemas['Submitted']> {
  return body(
    client.POST('/api/jobs/{job_id}/rerun', {
      body: changes,
      params: { path: { job_id: id }, header: { 'Idempotency-Key': key } },
    }),
  );
}

/** Send a further message to the agent of an ended job: a new job. key: as for submitJob. */
export async function replyToJob(id: string, prompt: string, key: string): Promise<Schemas['Submitted']> {
  return body(
    client.POST('/api/jobs/{job_id}/messages', {
      body: { prompt },
      params: { path: { job_id: id }, header: { 'Idempotency-Key': key } },
    }),
  );
}

export const agentsQuery = queryOptions({
  queryKey: ['agents'],
  queryFn: ({ signal }) => body(client.GET('/api/agents', { signal })),
  staleTime: 60_000,
});

export const modelsQuery = queryOptions({
  queryKey: ['ai-models'],
  queryFn: ({ signal }) => body(client.GET('/api/ai-models', { signal })),
  staleTime: 10_000,
});

/** Put a job's new state into the caches that show it. */
export function storeJob(queries: QueryClient, job: JobDetail): void {
  queries.setQueryData(jobQuery(job.id).queryKey, job);
  void queries.invalidateQueries({ queryKey: attemptsQuery(job.id).queryKey });
  void queries.invalidateQueries({ queryKey: ['facets'] });
}

/** Run an action on several jobs, a few at a time. Returns the failures by job. */
export async function forEachJob(
  ids: readonly string[],
  action: (id: string) => Promise<unknown>,
  parallel = 4,
): Promise<Map<string, ApiError>> {
  const failures = new Map<string, ApiError>();
  const waiting = [...ids];
  const worker = async () => {
    for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
      try {
        await action(id);
      } catch (error) {
        failures.set(id, error instanceof ApiError ? error : new ApiError(0, 'unknown', String(error)));
      }
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  return failures;
}
