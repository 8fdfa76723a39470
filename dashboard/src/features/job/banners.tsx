import type { JobDetail } from '../../api/jobs';
import { plain, visible } from '../../lib/ansi';
import { codeAdvice, codeMeaning } from '../../ui/failures';
import { Icon } from '../../ui/icons';
import { useNow } from '../../ui/time';
import styles from './job-page.module.css';
import { retryEffect, whyNoRetry, whyWaiting } from './sentences';

const LAST_LINES = 3;

/** Why the job waits or has failed, and what helps. */
export function Banners({ job }: { job: JobDetail }) {
  if (job.status === 'waiting') return <Waiting job={job} />;
  return job.status === 'failed' ? <Failed job={job} /> : null;
}

function Waiting({ job }: { job: JobDetail }) {
  const now = useNow();
  return (
    <div className={styles.waiting}>
      <Icon name="clock" />
      <p>{visible(whyWaiting(job, now))}</p>
    </div>
  );
}

function Failed({ job }: { job: JobDetail }) {
  const code = job.failedCode ?? 'internal';
  const lines = job.logs.slice(-LAST_LINES);
  const obstacle = whyNoRetry(job, useNow());
  return (
    <div className={styles.failed} role="group" aria-label="Failure">
      <Icon name="warning" />
      <div>
        <p className={styles.reason}>{visible(job.failedReason ?? codeMeaning(code))}</p>
        <p>
          <code>{code}</code> {codeMeaning(code)} {codeAdvice(code)} {obstacle ?? retryEffect(job)}
        </p>
        {lines.length > 0 && <pre className={styles.lastLines}>{lines.map((line) => visible(plain(line))).join('\n')}</pre>}
      </div>
    </div>
  );
}
