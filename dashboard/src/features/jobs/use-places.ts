/** Where the waiting jobs of a list stand in their queues. */

import { useQuery } from '@tanstack/react-query';

import { placesQuery, type QueuePlace } from '../../api/jobs';
import type { Rows } from './rows';

/** Rows whose places are read together, so that scrolling by a row reads none again. */
const BLOCK = 40;

/** Jobs that one request may name. */
const MOST_IDS = 100;

const NONE: Readonly<Record<string, QueuePlace>> = {};

/** The places of the waiting jobs around the rows on the screen, by id. */
export function usePlaces({ jobs, next }: Rows, first: number, end: number): Readonly<Record<string, QueuePlace>> {
  const start = Math.floor(first / BLOCK) * BLOCK;
  const near = jobs.slice(start, Math.ceil(end / BLOCK) * BLOCK);
  const ids = near
    .filter((job) => job.status === 'waiting')
    .map((job) => job.id)
    .slice(0, MOST_IDS);
  return useQuery(placesQuery(ids, `${start} ${next}`)).data ?? NONE;
}
