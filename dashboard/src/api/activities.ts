/** What the agents of running jobs do now: as lists say it, and then as the feed does. */

import { useSyncExternalStore } from 'react';

import type { Frame } from './feed';
import type { JobItem } from './jobs';

const latest = new Map<string, string>();
const listeners = new Set<() => void>();

/** Take over the activities of a frame. A job that has changed has its latest activity in its item. */
export function applyActivities({ jobs = [], gone = [], activities = {} }: Frame): void {
  for (const id of [...jobs.map((job) => job.id), ...gone]) latest.delete(id);
  for (const [id, activity] of Object.entries(activities)) latest.set(id, activity);
  for (const listener of listeners) listener();
}

export function activityOf(job: Pick<JobItem, 'id' | 'status' | 'activity'>): string | null {
  return job.status === 'active' ? (latest.get(job.id) ?? job.activity) : null;
}

/** The activity of a job; null unless it runs. */
export function useActivity(job: JobItem): string | null {
  return useSyncExternalStore(subscribe, () => activityOf(job));
}

function subscribe(changed: () => void): () => void {
  listeners.add(changed);
  return () => void listeners.delete(changed);
}
