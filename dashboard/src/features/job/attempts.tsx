import type { JobDetail } from '../../api/jobs';
import { useShortcuts } from '../../ui/shortcuts';
import { StatusIcon } from '../../ui/status';
import styles from './job-page.module.css';
import { useAttempt, useChangeSearch } from './use-job';

/** A choice between the attempts of a job, if it has several. */
export function Attempts({ job }: { job: JobDetail }) {
  const change = useChangeSearch();
  const current = useAttempt(job);
  const go = (attempt: number) => {
    if (attempt < 1 || attempt > job.attempts) return;
    change(({ line: _, ...before }) => ({ ...before, attempt }));
  };
  useShortcuts([
    { keys: '[', label: 'Previous attempt', run: () => go(current - 1) },
    { keys: ']', label: 'Next attempt', run: () => go(current + 1) },
  ]);
  if (job.attempts < 2) return null;
  const isOver = (attempt: number) => attempt < job.attempts;
  return (
    <div role="group" aria-label="Attempts" className={styles.attempts}>
      {Array.from({ length: job.attempts }, (_, index) => index + 1).map((attempt) => (
        <button key={attempt} type="button" aria-pressed={attempt === current} aria-label={`Attempt ${attempt}`} onClick={() => go(attempt)}>
          <StatusIcon status={isOver(attempt) ? 'failed' : job.status === 'waiting' ? 'failed' : job.status} />
          {attempt}
        </button>
      ))}
    </div>
  );
}
