/** Why a job waits, in a few words for a list. */

import type { JobItem, QueuePlace } from '../api/jobs';
import { clock, placeInLine } from '../lib/format';

/** Waiting jobs in the order in which they start. Those whose place is unknown follow, as they stood. */
export function inQueueOrder<Job extends Pick<JobItem, 'id'>>(
  jobs: readonly Job[],
  places: Readonly<Record<string, Pick<QueuePlace, 'position'>>>,
): readonly Job[] {
  const positionOf = (job: Job) => places[job.id]?.position ?? Infinity;
  return jobs.toSorted((one, other) => {
    const [first, second] = [positionOf(one), positionOf(other)];
    return first === second ? 0 : first - second;
  });
}

export function waitingNote(job: Pick<JobItem, 'model' | 'notBefore'>, place: QueuePlace): string {
  const line = placeInLine(place.position);
  switch (place.reason) {
    case 'slots_busy':
      return `${line}, ${place.active}/${place.slots} busy`;
    case 'paused':
      return place.pausedUntil === null
        ? `${job.model} is paused`
        : `${job.model} is paused until ${clock(place.pausedUntil)}`;
    case 'requeued':
      return job.notBefore === null
        ? `Requeued, ${line.toLowerCase()}`
        : `Starts at ${clock(job.notBefore)} at the earliest`;
    case 'no_slots':
      return `${job.model} has no slots`;
    case 'unresolved':
      return 'The controller has not checked it yet';
    case 'starting':
      return 'Starts now';
    case 'concurrency':
      return `Waits for ${place.waitsFor ?? 'a job'} of its key`;
    case 'debounce':
      return place.debouncedUntil === null
        ? 'Waits for newer jobs of its key'
        : `Starts at ${clock(place.debouncedUntil)} at the earliest`;
    case 'paused_by_admin':
      return 'An administrator has paused the engine';
    case 'no_controller':
      return 'No controller is running';
    default:
      return place.startsAfter === null ? 'Waits' : `Starts at ${clock(place.startsAfter)} at the earliest`;
  }
}
