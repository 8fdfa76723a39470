import { useQuery } from '@tanstack/react-query';
import { useDeferredValue } from 'react';

import { fetchEventPage, idOf, placeOf } from '../../api/events';
import type { JobDetail } from '../../api/jobs';
import { count } from '../../lib/format';
import { TYPING_MS, useSettled } from '../../ui/use-settled';
import { Hits, type SearchPage } from './hits';

export interface HitsOfLog {
  /** The number of hits; undefined while the engine searches. */
  total: number | undefined;
  error: unknown;
  /** Find the next hit after a line, or the previous one before it. After the last hit follows the first. */
  seek: (from: number, step: 1 | -1) => Promise<number | undefined>;
  /** The number of a line among the hits, such as `17 of `; empty if it is unknown. */
  position: (line: number | undefined) => string;
}

const LIMIT = 1_000;
/** The time between two searches of a log that still grows. */
const REFRESH_MS = 5_000;

/** Search an attempt's events on the engine. isUrgent: without waiting for the end of typing. */
export function useHits(job: JobDetail, attempt: number, q: string, isLive: boolean, isUrgent: boolean): HitsOfLog {
  const text = useSettled(useDeferredValue(q.trim()), isUrgent ? 0 : TYPING_MS);
  const search = (
    query: { after?: number; before?: number; limit: number },
    signal?: AbortSignal,
  ): Promise<SearchPage> => searchAttempt(job.id, attempt, text, query, signal);
  const { data, error } = useQuery({
    queryKey: ['hits', job.id, attempt, text],
    queryFn: async ({ signal }) => new Hits(await search({ after: 0, limit: LIMIT }, signal)),
    enabled: text !== '',
    staleTime: isLive ? 0 : Infinity,
    refetchInterval: isLive ? REFRESH_MS : false,
    structuralSharing: false,
  });
  const hits = text === q.trim() ? data : undefined;
  return {
    total: hits?.total,
    error,
    seek: async (from, step) => hits?.seek(from, step, search),
    position: (line) => {
      const number = hits?.numberOf(line);
      return number === undefined ? '' : `${count(number)} of `;
    },
  };
}

async function searchAttempt(
  jobId: string,
  attempt: number,
  q: string,
  { after, before, limit }: { after?: number; before?: number; limit: number },
  signal?: AbortSignal,
): Promise<SearchPage> {
  const place =
    after !== undefined
      ? { after: idOf({ attempt, seq: after }) }
      : { before: idOf(before === undefined ? { attempt: attempt + 1, seq: 0 } : { attempt, seq: before }) };
  const page = await fetchEventPage(jobId, { q, limit, attempt, ...place }, signal);
  return { lines: page.events.map((event) => placeOf(event.id).seq), total: page.attemptTotal ?? 0 };
}
