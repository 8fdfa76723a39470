/** Where the waiting jobs of a list stand in their queues. */

import { useQuery } from '@tanstack/react-query';

import { placesQuery, type QueuePlace } from '../../api/jobs';
import type { Rows } from './rows';
import { MOST_IN_QUEUE } from './search';

/** Rows whose places are read together, so that scrolling by a row reads none again. */
const BLOCK = 40;

const NONE: Readonly<Record<string, QueuePlace>> = {};

/** The places of the waiting jobs around the rows on the screen, by id. */
export function usePlaces({ jobs, next }: Rows, first: number, end: number): Readonly<Record<string, QueuePlace>> {
  const start = Math.floor(first / BLOCK) * BLOCK;
  const near = jobs.slice(start, Math.ceil(end / BLOCK) * BLOCK);
  const ids = near
    .filter((job) => job.status === 'waiting')
    .map((job) => job.id)
    .slice(0, MOST_IN_QUEUE); // as many as a request may name
  return useQuery(placesQuery(ids, `${start} ${next}`)).data ?? NONE;
}
