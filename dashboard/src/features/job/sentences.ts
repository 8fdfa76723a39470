/** Sentences about the state of a job. */

import { hasEnded, type JobDetail, type Waiting } from '../../api/jobs';
import { clock, counted, duration, ordinal } from '../../lib/format';

/** Why a job cannot be retried; undefined if it can. */
export function whyNoRetry(job: JobDetail): string | undefined {
  if (job.status !== 'failed') return 'Only a failed job can be retried.';
  return job.retryRefused === null ? undefined : `It cannot be retried: ${job.retryRefused}.`;
}

/** Whether the report of a job can be written to GitHub again. */
export function canPublish({ status, report }: Pick<JobDetail, 'status' | 'report'>): boolean {
  return hasEnded(status) && Boolean(report?.target) && report?.mode !== 'preview';
}

/** What a retry does with earlier work. */
export function retryEffect(job: JobDetail): string {
  return job.session
    ? 'A retry resumes the session of the agent if its workspace still exists.'
    : 'A retry starts over in a fresh workspace.';
}

/** What cancelling a job does. The job may have ended since the user asked for it. */
export function cancelEffect(job: Pick<JobDetail, 'status' | 'cancelRequestedAt'>): string {
  if (hasEnded(job.status)) return 'The job has ended already.';
  if (job.cancelRequestedAt !== null) return 'The job is being cancelled already.';
  return job.status === 'active'
    ? 'The agent is stopped with all its processes. Its changes so far stay available.'
    : 'The job does not start.';
}

/** Why a job without an attempt has no such part. */
export function whyNothing({ status }: Pick<JobDetail, 'status'>, part: 'activity' | 'log'): string {
  if (!hasEnded(status)) return `Its ${part} appears here as soon as it runs.`;
  return `It ${status === 'cancelled' ? 'was cancelled' : 'ended'} before it started, so it has no ${part}.`;
}

/** Why no bundle of the commits of the latest attempt is stored; undefined if there is one, or there are no commits. */
export function whyNoBundle({ outputs, logs }: Pick<JobDetail, 'outputs' | 'logs'>): string | undefined {
  if (outputs.bundleBytes !== null || outputs.commit === null) return undefined;
  return `No bundle of the commits is stored${reasonIn(logs, 'no bundle of the commits is stored')}.`;
}

/** Why the latest attempt, which has ended, left no patch. */
export function whyNoPatch(job: Pick<JobDetail, 'outputs' | 'logs'>): string {
  const { commit, filesChanged } = job.outputs;
  if (filesChanged) return `The attempt changed ${counted(filesChanged, 'file')}, but its output was deleted.`;
  if (commit === null) return NO_CHANGES;
  const patch =
    filesChanged === 0
      ? 'The attempt made commits that change no file together.'
      : `The attempt made commits, but no patch of them is stored${reasonIn(job.logs, 'the changes in the workspace cannot be computed')}.`;
  return [patch, whyNoBundle(job)].filter(Boolean).join(' ');
}

export const NO_CHANGES = 'The attempt changed no file, or its output was deleted.';

/** The reason in a line that the executor has logged at the end, such as `[no bundle …: REASON]`. */
function reasonIn(logs: readonly string[], failure: string): string {
  const line = logs.findLast((each) => each.startsWith(`[${failure}: `) && each.endsWith(']'));
  return line === undefined ? '' : line.slice(failure.length + 1, -1);
}

/** Why a job waits, and until when, in one or two sentences. */
export function whyWaiting(job: JobDetail, now: number): string {
  const model = `${job.provider}/${job.model}`;
  const { waiting } = job;
  if (!waiting) return `Waits for a free slot of ${model}, with priority ${job.priority}.`;
  const { position, slots, active, pausedUntil } = waiting;
  const place = position === 1 ? 'Next' : `${ordinal(position)} in line`;
  switch (waiting.reason) {
    case 'slots_busy':
      return `${place} for ${model}: ${active} of ${slots} ${slots === 1 ? 'slot is' : 'slots are'} busy.${starts(waiting)}`;
    case 'paused':
      return `${model} is paused${pausedUntil ? ` until ${clock(pausedUntil)}` : ''} at the request of its provider. ${place}.${starts(waiting)}`;
    case 'requeued': {
      const start = job.notBefore === null ? now : Date.parse(job.notBefore);
      const reason = job.failedReason ? `: ${job.failedReason}` : '.';
      return `Requeued; starts in ${duration(start - now)} at the earliest${reason}`;
    }
    case 'no_slots':
      return `${model} has no slots, so none of its jobs start. Give the model at least one slot.`;
    case 'unresolved':
      return 'The controller has not checked this job yet.';
    case 'starting':
      return 'Starts now.';
    case 'concurrency':
      return 'An older job with the same concurrency key must end first.';
    case 'debounce': {
      const until = waiting.debouncedUntil ? ` until ${clock(waiting.debouncedUntil)}` : '';
      return `Waits${until} for newer jobs with the same concurrency key.`;
    }
    case 'paused_by_admin':
      return 'An administrator has paused the engine: no job starts until somebody resumes it.';
    case 'no_controller':
      return 'No controller is running, so no job starts. Start one: it drives the jobs of the cluster.';
    default:
      return waiting.startsAfter === null ? 'Waits.' : `Starts at ${clock(waiting.startsAfter)} at the earliest.`;
  }
}

function starts({ estimateSeconds }: Waiting): string {
  if (estimateSeconds === null) return '';
  if (estimateSeconds < 60) return ' Starts within a minute.';
  const minutes = Math.round(estimateSeconds / 60);
  return ` Starts in about ${minutes < 90 ? `${minutes} min` : `${Math.round(minutes / 60)} h`}.`;
}

/** The condition under which the next agent of a chain starts. */
export const CONDITIONS: Record<NonNullable<JobDetail['chainNext']>['condition'], string> = {
  'on-success': 'if this job completes',
  'on-failure': 'if this job fails',
  always: 'after this job',
};
