import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';

import { cancelJob, forEachJob, hasEnded, retryJob, type BulkAction, type JobItem } from '../../api/jobs';
import { count, counted } from '../../lib/format';
import { useMayChange } from '../../ui/access';
import { Button, IconButton } from '../../ui/button';
import { Dialog } from '../../ui/dialog';
import { toast } from '../../ui/toasts';
import { ACTION_NOTES, outcomeWords } from './bulk';
import styles from './jobs-page.module.css';
import type { Selection } from './use-selection';

/** Errors that are shown one by one. */
const SHOWN_ERRORS = 3;

/** The box in the head of the table. */
export function SelectAll({ selection, loaded }: { selection: Selection; loaded: number }) {
  const mayChange = useMayChange();
  const box = useRef<HTMLInputElement>(null);
  const selected = selection.jobs.length;
  useEffect(() => {
    if (box.current) box.current.indeterminate = selected > 0 && selected < loaded;
  });
  return (
    mayChange && (
      <label>
        <input
          ref={box}
          type="checkbox"
          checked={selected > 0 && selected === loaded}
          disabled={loaded === 0}
          aria-label="Select all loaded jobs"
          onChange={() => (selected === loaded ? selection.clear() : selection.selectAll())}
        />
      </label>
    )
  );
}

interface SelectionBarProps {
  jobs: readonly JobItem[];
  /** The number of jobs that match the filter, if known. */
  total: number | undefined;
  onAll: () => void;
  onClear: () => void;
  onDone: (changed: readonly JobItem[]) => void;
}

/** The number of selected jobs, and what can be done with them. */
export function SelectionBar({ jobs, total, onAll, onClear, onDone }: SelectionBarProps) {
  const queries = useQueryClient();
  const [asked, setAsked] = useState<BulkAction>();
  const [isBusy, setBusy] = useState(false);
  const affected = {
    cancel: jobs.filter((job) => !hasEnded(job.status)),
    retry: jobs.filter((job) => job.status === 'failed'),
  };
  const run = async (action: BulkAction) => {
    setBusy(true);
    const changed: JobItem[] = [];
    const failures = await forEachJob(
      affected[action].map((job) => job.id),
      async (id) => {
        changed.push(await (action === 'cancel' ? cancelJob(id) : retryJob(id)));
      },
    );
    if (changed.length > 0) toast(outcomeWords({ action, jobs: changed.length, changed: changed.length }));
    for (const [id, error] of [...failures].slice(0, SHOWN_ERRORS)) toast(`${id}: ${error.message}`, 'error');
    if (failures.size > SHOWN_ERRORS)
      toast(`${counted(failures.size - SHOWN_ERRORS, 'other job')} failed too.`, 'error');
    await queries.invalidateQueries({ queryKey: ['facets'] });
    setBusy(false);
    setAsked(undefined);
    onDone(changed);
  };
  return (
    <div className={styles.actions} role="toolbar" aria-label="Selected jobs">
      <span>{count(jobs.length)} selected</span>
      {affected.retry.length + affected.cancel.length === 0 && (
        <span className={styles.noAction}>Ended without a failure: nothing to cancel or retry</span>
      )}
      {affected.retry.length > 0 && (
        <Button onClick={() => setAsked('retry')}>Retry {count(affected.retry.length)} failed</Button>
      )}
      {affected.cancel.length > 0 && (
        <Button kind="danger" onClick={() => setAsked('cancel')}>
          Cancel {count(affected.cancel.length)}
        </Button>
      )}
      {total !== undefined && total > jobs.length && (
        <Button kind="quiet" onClick={onAll}>
          All {count(total)}…
        </Button>
      )}
      <IconButton icon="close" label="Clear the selection" onClick={onClear} />
      {asked && (
        <Dialog
          title={
            asked === 'cancel'
              ? `Cancel ${counted(affected.cancel.length, 'job')}?`
              : `Retry ${counted(affected.retry.length, 'job')}?`
          }
          onClose={() => setAsked(undefined)}
          footer={
            <>
              <Button onClick={() => setAsked(undefined)}>Back</Button>
              <Button kind={asked === 'cancel' ? 'danger' : 'primary'} isBusy={isBusy} onClick={() => void run(asked)}>
                {asked === 'cancel' ? 'Cancel' : 'Retry'} {counted(affected[asked].length, 'job')}
              </Button>
            </>
          }
        >
          <p>{ACTION_NOTES[asked]}</p>
        </Dialog>
      )}
    </div>
  );
}
