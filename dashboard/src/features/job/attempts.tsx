import { useQuery } from '@tanstack/react-query';

import { attemptsQuery, type JobDetail } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { duration } from '../../lib/format';
import { useShortcuts } from '../../ui/shortcuts';
import { STATUS_WORDS, StatusIcon } from '../../ui/status';
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
  const { data: known } = useQuery({ ...attemptsQuery(job.id), enabled: job.attempts > 1 });
  if (job.attempts < 2) return null;
  return (
    <div role="group" aria-label="Attempts" className={styles.attempts}>
      {Array.from({ length: job.attempts }, (_, index) => {
        const attempt = index + 1;
        const facts = known?.[index];
        const status = facts?.status ?? (attempt < job.attempts || job.status === 'waiting' ? 'failed' : job.status);
        const notes = [
          ...(facts?.failedCode ? [facts.failedCode.replaceAll('_', ' ')] : []),
          ...(facts?.startedAt && facts.finishedAt
            ? [duration(Date.parse(facts.finishedAt) - Date.parse(facts.startedAt))]
            : []),
        ];
        return (
          <button
            key={attempt}
            type="button"
            aria-pressed={attempt === current}
            aria-label={[`Attempt ${attempt}`, STATUS_WORDS[status].toLowerCase(), ...notes].join(', ')}
            title={facts?.failedReason ? visible(facts.failedReason) : undefined}
            onClick={() => go(attempt)}
          >
            <StatusIcon status={status} />
            {attempt}
            {notes.map((note) => (
              <span key={note} className={styles.attemptNote}>
                {note}
              </span>
            ))}
          </button>
        );
      })}
    </div>
  );
}
