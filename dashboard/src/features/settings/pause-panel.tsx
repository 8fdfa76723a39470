import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';

import { actOnJobs, facetsQuery, type JobFacets, type JobFilter } from '../../api/jobs';
import { pauseQuery, pauseWords, setPause, type Pause } from '../../api/pause';
import { counted } from '../../lib/format';
import { Button } from '../../ui/button';
import { Confirm } from '../../ui/confirm';
import { Field } from '../../ui/field';
import { Panel } from '../../ui/page';
import { describe, Failure } from '../../ui/states';
import { toast } from '../../ui/toasts';
import styles from './settings.module.css';

const UNFINISHED: JobFilter = { status: ['waiting', 'active'] };

function unfinished(facets: JobFacets): number {
  const rows = facets.status.filter(({ value }) => value === 'waiting' || value === 'active');
  return rows.reduce((sum, { count }) => sum + count, 0);
}

/** Pauses, resumes and stops the whole engine. */
export function PausePanel() {
  const queries = useQueryClient();
  const { data: pause } = useQuery(pauseQuery);
  const facets = useQuery(facetsQuery(UNFINISHED));
  const [asked, setAsked] = useState<'pause' | 'stop'>();
  const [reason, setReason] = useState('');
  const close = () => setAsked(undefined);
  const done = (changed: Pause, words: string) => {
    queries.setQueryData(pauseQuery.queryKey, changed);
    void queries.invalidateQueries({ queryKey: ['facets'] });
    toast(words);
    close();
  };
  const stop = async () => {
    const changed = await setPause(true, reason);
    queries.setQueryData(pauseQuery.queryKey, changed);
    const expected = unfinished(await queries.query({ ...facetsQuery(UNFINISHED), staleTime: 0 }));
    if (expected > 0) await actOnJobs('cancel', UNFINISHED, expected);
    return changed;
  };
  const resume = useMutation({
    mutationFn: () => setPause(false),
    onSuccess: (changed) => done(changed, 'The engine starts jobs again.'),
    onError: (error) => toast(describe(error).message, 'error'),
  });
  return (
    <Panel title="Pause and stop">
      <div className={styles.links}>
        {pause && <p>{pause.paused ? pauseWords(pause) : 'The engine starts jobs.'}</p>}
        {facets.error && <Failure error={facets.error} onRetry={() => void facets.refetch()} />}
        <div style={{ display: 'flex', flexWrap: 'wrap', gap: 8 }}>
          {pause?.paused ? (
            <Button isChanging isBusy={resume.isPending} onClick={() => resume.mutate()}>
              Resume
            </Button>
          ) : (
            <Button isChanging onClick={() => setAsked('pause')}>
              Pause…
            </Button>
          )}
          <Button isChanging kind="danger" onClick={() => setAsked('stop')}>
            Stop everything…
          </Button>
        </div>
      </div>
      {asked && (
        <Confirm
          title={asked === 'pause' ? 'Pause the engine?' : 'Stop everything?'}
          action={asked === 'pause' ? 'Pause' : 'Pause and cancel all jobs'}
          run={asked === 'pause' ? () => setPause(true, reason) : stop}
          onDone={(changed) =>
            done(
              changed,
              asked === 'pause' ? 'The engine is paused.' : 'The engine is paused, and all jobs are cancelled.',
            )
          }
          onClose={close}
        >
          <p>
            No attempt starts until somebody resumes the engine, also after a restart.{' '}
            {asked === 'pause'
              ? 'Running attempts go on, and submissions are accepted.'
              : facets.data
                ? `${counted(unfinished(facets.data), 'waiting or running job')} will be cancelled.`
                : 'All waiting and running jobs will be cancelled.'}
          </p>
          <Field label="Reason">
            {(ids) => (
              <input {...ids} value={reason} maxLength={500} onChange={(event) => setReason(event.target.value)} />
            )}
          </Field>
        </Confirm>
      )}
    </Panel>
  );
}
