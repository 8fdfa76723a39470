import type { JobItem, Status } from '../api/jobs';
import styles from './status.module.css';

export const STATUS_WORDS: Record<Status, string> = {
  waiting: 'Waiting',
  active: 'Running',
  completed: 'Completed',
  failed: 'Failed',
  cancelled: 'Cancelled',
};

/** The status of a job in a word, with the reason where a job failed or waits for another attempt. */
export function statusNote(
  job: Pick<JobItem, 'status' | 'cancelRequestedAt' | 'notBefore' | 'attempts' | 'failedCode'>,
): string {
  if (job.status === 'active' && job.cancelRequestedAt) return 'Cancelling';
  if (job.status === 'waiting' && job.notBefore && job.attempts > 0) return 'Requeued';
  if (job.status === 'failed' && job.failedCode) return sentence(job.failedCode.replaceAll('_', ' '));
  return STATUS_WORDS[job.status];
}

function sentence(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The icon of a status. Its shape differs too, so that the colour is not needed. */
export function StatusIcon({ status }: { status: Status }) {
  return (
    <svg
      className={`${styles.icon} ${styles[status]}`}
      width="14"
      height="14"
      viewBox="0 0 14 14"
      aria-hidden="true"
      focusable="false"
    >
      {status === 'waiting' && (
        <>
          <circle
            cx="7"
            cy="7"
            r="5.6"
            fill="none"
            stroke="currentColor"
            strokeWidth="1.4"
            strokeDasharray="2.2 1.72"
          />
        </>
      )}
      {status === 'active' && (
        <>
          <circle cx="7" cy="7" r="5.6" fill="none" stroke="currentColor" strokeWidth="1.4" opacity="0.35" />
          <path
            className={styles.spin}
            d="M7 1.4A5.6 5.6 0 0 1 12.6 7"
            fill="none"
            stroke="currentColor"
            strokeWidth="1.8"
            strokeLinecap="round"
          />
        </>
      )}
      {status === 'completed' && (
        <>
          <circle cx="7" cy="7" r="6.3" fill="currentColor" />
          <path
            d="M4.2 7.2l2 2 3.7-4.2"
            fill="none"
            stroke="var(--background)"
            strokeWidth="1.5"
            strokeLinecap="round"
            strokeLinejoin="round"
          />
        </>
      )}
      {status === 'failed' && (
        <>
          <circle cx="7" cy="7" r="6.3" fill="currentColor" />
          <path
            d="M4.9 4.9l4.2 4.2M9.1 4.9L4.9 9.1"
            fill="none"
            stroke="var(--background)"
            strokeWidth="1.5"
            strokeLinecap="round"
          />
        </>
      )}
      {status === 'cancelled' && (
        <>
          <circle cx="7" cy="7" r="5.6" fill="none" stroke="currentColor" strokeWidth="1.4" />
          <path d="M3.2 10.8l7.6-7.6" stroke="currentColor" strokeWidth="1.4" />
        </>
      )}
    </svg>
  );
}

/** The icon of a status with its word for screen readers, where no word stands beside it. */
export function NamedStatusIcon({ status }: { status: Status }) {
  return (
    <>
      <StatusIcon status={status} />
      <span className="visually-hidden">{STATUS_WORDS[status]}: </span>
    </>
  );
}

/** A status by icon, word and colour. */
export function StatusBadge({ status, note }: { status: Status; note?: string | undefined }) {
  return (
    <span className={styles.badge}>
      <StatusIcon status={status} />
      <span className={styles[status]}>{note ?? STATUS_WORDS[status]}</span>
    </span>
  );
}
