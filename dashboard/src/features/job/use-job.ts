import { useQuery } from '@tanstack/react-query';
import { useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { useCallback } from 'react';

import { jobQuery, type JobDetail } from '../../api/jobs';
import type { JobSearch } from './search';

/** The job of the page. Its tabs are shown only once it is loaded. */
export function useJob(): JobDetail {
  const { id } = useParams({ from: '/app/jobs/$id' });
  const { data } = useQuery(jobQuery(id));
  if (!data) throw new Error(`the job ${id} is not loaded`);
  return data;
}

export function useJobSearch(): JobSearch {
  return useSearch({ from: '/app/jobs/$id' });
}

/** A function that changes the search part of the URL, in place. */
export function useChangeSearch(): (edit: (before: JobSearch) => JobSearch) => void {
  const navigate = useNavigate();
  return useCallback(
    (edit) =>
      void navigate({ to: '.', search: (before: JobSearch) => edit(before), replace: true, resetScroll: false }),
    [navigate],
  );
}

/** The attempt that the URL selects, else the latest. 0: none has started. */
export function useAttempt(job: JobDetail): number {
  const { attempt } = useJobSearch();
  return Math.min(attempt ?? job.attempts, job.attempts);
}
