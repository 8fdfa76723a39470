import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useEffectEvent, useState } from 'react';

import { actOnJobs, facetsQuery, type BulkAction, type JobFacets, type JobFilter } from '../../api/jobs';
import { count, counted } from '../../lib/format';
import { Button } from '../../ui/button';
import { Dialog } from '../../ui/dialog';
import { Notice } from '../../ui/notice';
import { Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { ACTION_NOTES, BULK_ACTIONS, bulkFilter, bulkWords, concernedCount, MOST_JOBS, outcomeWords } from './bulk';
import styles from './jobs-page.module.css';

/** An action that the engine carries out. jobs: the number of jobs that it concerns. */
export interface BulkRun {
  action: BulkAction;
  filter: JobFilter;
  jobs: number;
}

/** The time without a change after which an action counts as done: the engine does not report its end. */
const QUIET_MS = 8_000;

/** Opens the dialog for all matching jobs. Names the likely action. */
export function BulkButton({ filter, facets, onClick }: { filter: JobFilter; facets: JobFacets | undefined; onClick: () => void }) {
  const [failed, open] = [concernedCount('retry', filter, facets), concernedCount('cancel', filter, facets)];
  if (failed + open === 0) return null;
  return <Button className={styles.all} onClick={onClick}>{failed > 0 ? `Retry ${count(failed)} failed…` : `Cancel ${count(open)}…`}</Button>;
}

/** Ask what to do with all jobs that match a filter, and start it. */
export function BulkDialog({ filter, onClose, onRun }: { filter: JobFilter; onClose: () => void; onRun: (run: BulkRun) => void }) {
  const queries = useQueryClient();
  const facets = useQuery({ ...facetsQuery(filter), staleTime: 0 });
  const [chosen, setChosen] = useState<BulkAction>();
  const options = BULK_ACTIONS.map((action) => ({ action, jobs: concernedCount(action, filter, facets.data) })).filter(({ jobs }) => jobs > 0);
  const current = options.find(({ action }) => action === chosen) ?? options[0];
  const start = useMutation({
    mutationFn: ({ action, jobs }: { action: BulkAction; jobs: number }) => actOnJobs(action, bulkFilter(action, filter), jobs),
    onSuccess: ({ jobs }, { action }) => onRun({ action, filter, jobs }),
    onError: () => queries.invalidateQueries({ queryKey: ['facets'] }),
  });
  const isTooMany = current !== undefined && current.jobs > MOST_JOBS;
  return (
    <Dialog title="All jobs that match" onClose={onClose}
      footer={<>
        <Button onClick={onClose}>Back</Button>
        {current && (
          <Button kind={current.action === 'cancel' ? 'danger' : 'primary'} isBusy={start.isPending} disabled={isTooMany} onClick={() => start.mutate(current)}>
            {current.action === 'cancel' ? 'Cancel' : 'Retry'} {counted(current.jobs, 'job')}
          </Button>
        )}
      </>}>
      <div className={styles.bulk}>
        {facets.error ? <Failure error={facets.error} onRetry={() => void facets.refetch()} />
          : !facets.data ? <Loading rows={2} height={32} />
          : !current && <p>No matching job can be retried or cancelled.</p>}
        {options.map(({ action, jobs }) => (
          <label key={action} className={styles.bulkChoice}>
            <input type="radio" name="action" checked={action === current?.action} onChange={() => { setChosen(action); start.reset(); }} />
            <span><strong>{bulkWords(action, jobs)}</strong>{ACTION_NOTES[action]}</span>
          </label>
        ))}
        {isTooMany && <Notice>One action may concern at most {count(MOST_JOBS)} jobs. Choose more filters.</Notice>}
        {start.error && <Failure error={start.error} />}
      </div>
    </Dialog>
  );
}

/** The progress of an action, by the number of jobs that still match its filter. */
export function BulkProgress({ run, onEnd }: { run: BulkRun; onEnd: () => void }) {
  const { data: facets, dataUpdatedAt } = useQuery(facetsQuery(run.filter));
  const [startedAt] = useState(() => Date.now());
  const left = dataUpdatedAt > startedAt ? Math.min(run.jobs, concernedCount(run.action, run.filter, facets)) : run.jobs;
  const end = useEffectEvent(() => {
    toast(outcomeWords(run.action, run.jobs, left));
    onEnd();
  });
  useEffect(() => {
    const timer = setTimeout(() => end(), left === 0 ? 0 : QUIET_MS);
    return () => clearTimeout(timer);
  }, [left]);
  return (
    <label className={`${styles.all} ${styles.progress}`}>
      {run.action === 'retry' ? 'Retrying' : 'Cancelling'}: {count(run.jobs - left)} of {counted(run.jobs, 'job')}
      <progress max={run.jobs} value={run.jobs - left} />
    </label>
  );
}
