import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useEffectEvent, useState } from 'react';

import { isFinal } from '../../api/client';
import { actOnJobs, bulkQuery, facetsQuery, type BulkAction, type JobFacets, type JobFilter } from '../../api/jobs';
import { count, counted } from '../../lib/format';
import { Button } from '../../ui/button';
import { Dialog } from '../../ui/dialog';
import { Notice } from '../../ui/notice';
import { describe, Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { ACTION_NOTES, BULK_ACTIONS, bulkFilter, bulkWords, concernedCount, MOST_JOBS, outcomeWords } from './bulk';
import styles from './jobs-page.module.css';

/** Opens the dialog for all matching jobs. Names the likely action. */
export function BulkButton({
  filter,
  facets,
  onClick,
}: {
  filter: JobFilter;
  facets: JobFacets | undefined;
  onClick: () => void;
}) {
  const [failed, open] = [concernedCount('retry', filter, facets), concernedCount('cancel', filter, facets)];
  if (failed + open === 0) return null;
  return (
    <Button isChanging className={styles.all} onClick={onClick}>
      {failed > 0 ? `Retry ${count(failed)} failed…` : `Cancel ${count(open)}…`}
    </Button>
  );
}

/** Ask what to do with all jobs that match a filter, and start it. onRun: gets the id of the action. */
export function BulkDialog({
  filter,
  onClose,
  onRun,
}: {
  filter: JobFilter;
  onClose: () => void;
  onRun: (id: string) => void;
}) {
  const queries = useQueryClient();
  const facets = useQuery({ ...facetsQuery(filter), staleTime: 0 });
  const [chosen, setChosen] = useState<BulkAction>();
  const options = BULK_ACTIONS.map((action) => ({ action, jobs: concernedCount(action, filter, facets.data) })).filter(
    ({ jobs }) => jobs > 0,
  );
  const current = options.find(({ action }) => action === chosen) ?? options[0];
  const start = useMutation({
    mutationFn: ({ action, jobs }: { action: BulkAction; jobs: number }) =>
      actOnJobs(action, bulkFilter(action, filter), jobs),
    onSuccess: ({ id }) => onRun(id),
    onError: () => queries.invalidateQueries({ queryKey: ['facets'] }),
  });
  const isTooMany = current !== undefined && current.jobs > MOST_JOBS;
  return (
    <Dialog
      title="All jobs that match"
      onClose={onClose}
      footer={
        <>
          <Button onClick={onClose}>Back</Button>
          {current && (
            <Button
              kind={current.action === 'cancel' ? 'danger' : 'primary'}
              isBusy={start.isPending}
              disabled={isTooMany}
              onClick={() => start.mutate(current)}
            >
              {current.action === 'cancel' ? 'Cancel' : 'Retry'} {counted(current.jobs, 'job')}
            </Button>
          )}
        </>
      }
    >
      <div className={styles.bulk}>
        {facets.error ? (
          <Failure error={facets.error} onRetry={() => void facets.refetch()} />
        ) : !facets.data ? (
          <Loading rows={2} height={32} />
        ) : (
          !current && <p>No matching job can be retried or cancelled.</p>
        )}
        {options.map(({ action, jobs }) => (
          <label key={action} className={styles.bulkChoice}>
            <input
              type="radio"
              name="action"
              checked={action === current?.action}
              onChange={() => {
                setChosen(action);
                start.reset();
              }}
            />
            <span>
              <strong>{bulkWords(action, jobs)}</strong>
              {ACTION_NOTES[action]}
            </span>
          </label>
        ))}
        {isTooMany && <Notice>One action may concern at most {count(MOST_JOBS)} jobs. Choose more filters.</Notice>}
        {start.error && <Failure error={start.error} />}
      </div>
    </Dialog>
  );
}

/** The progress of an action. onEnd: called once it is done, or unknown to the engine. */
export function BulkStatus({ id, onEnd }: { id: string; onEnd: () => void }) {
  const queries = useQueryClient();
  const { data: run, error: latest } = useQuery(bulkQuery(id));
  const error = isFinal(latest) ? latest : undefined; // others pass, such as an API pod that restarts
  const isOver = Boolean(run?.finishedAt ?? error);
  const end = useEffectEvent(() => {
    if (error) toast(describe(error).message, 'error');
    else if (run) toast(outcomeWords(run));
    void queries.invalidateQueries({ queryKey: ['facets'] });
    onEnd();
  });
  useEffect(() => {
    if (isOver) end();
  }, [isOver]);
  return (
    run && (
      <label className={`${styles.all} ${styles.progress}`}>
        {run.action === 'retry' ? 'Retrying' : 'Cancelling'}: {count(run.done)} of {counted(run.jobs, 'job')}
        <progress max={run.jobs} value={run.done} />
      </label>
    )
  );
}
