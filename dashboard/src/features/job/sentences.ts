/** Sentences about the state of a job. */

import type { JobDetail } from '../../api/jobs';
import { duration } from '../../lib/format';

const TOKEN_LIFETIME = 10 * 60_000;

/** Why a failed job cannot be retried; undefined if it can. */
export function whyNoRetry(job: JobDetail, now: number): string | undefined {
  if (job.status !== 'failed') return 'Only a failed job can be retried.';
  if (job.workspaceSetup?.hasCredential && now - Date.parse(job.createdAt) > TOKEN_LIFETIME) {
    return 'The repository’s token is older than 10 minutes. Use Rerun, and send a new token.';
  }
  return undefined;
}

/** What a retry does with earlier work. */
export function retryEffect(job: JobDetail): string {
  return job.session ? 'A retry resumes the session of the agent if its workspace still exists.' : 'A retry starts over in a fresh workspace.';
}

/** Why a job waits, in one sentence. */
export function whyWaiting(job: JobDetail, now: number): string {
  const start = job.notBefore === null ? 0 : Date.parse(job.notBefore);
  if (start > now) {
    const reason = job.failedReason ? `: ${job.failedReason}` : '';
    return `Requeued; starts in ${duration(start - now)} at the earliest${reason}`;
  }
  return `Waits for a free slot of ${job.provider}/${job.model}, with priority ${job.priority}.`;
}
