import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';

import type { JobDetail } from '../../api/jobs';
import { plain, visible } from '../../lib/ansi';
import { counted } from '../../lib/format';
import { codeAdvice, codeMeaning } from '../../ui/failures';
import { Icon } from '../../ui/icons';
import { useNow } from '../../ui/time';
import styles from './job-page.module.css';
import { retryEffect, whyNoRetry, whyWaiting } from './sentences';

const LAST_LINES = 3;
const SHOWN_HOLDERS = 4;
const SHOWN_HOSTS = 3;
/** The engine lists no more of an attempt. */
const MOST_HOSTS = 50;

/** Why the job waits or has failed and what helps, and what was refused to its agent. */
export function Banners({ job }: { job: JobDetail }) {
  return (
    <>
      {job.status === 'waiting' && <Waiting job={job} />}
      {job.status === 'failed' && <Failed job={job} />}
      {job.refusedHosts.length > 0 && (
        <Notice job={job}>
          The network rule refused {job.refusedHosts.length >= MOST_HOSTS && 'at least '}
          {counted(job.refusedHosts.length, 'host')}: {visible(job.refusedHosts.slice(0, SHOWN_HOSTS).join(', '))}
          {job.refusedHosts.length > SHOWN_HOSTS && ' …'}
        </Notice>
      )}
      {job.keyExposed && <Notice job={job}>The agent could read the login of its model.</Notice>}
    </>
  );
}

/** What the agent met on its way, whatever its outcome. */
function Notice({ job, children }: { job: JobDetail; children: ReactNode }) {
  return (
    <p className={styles.notice}>
      <Icon name="warning" size={14} />
      <span>
        {children}{' '}
        <Link to="/jobs/$id/details" params={{ id: job.id }}>
          Details
        </Link>
      </span>
    </p>
  );
}

function Waiting({ job }: { job: JobDetail }) {
  const now = useNow();
  const holders = job.waiting?.reason === 'slots_busy' ? job.waiting.holders : [];
  return (
    <div className={styles.waiting} role="group" aria-label="Waiting">
      <Icon name="clock" />
      <div>
        <p>{visible(whyWaiting(job, now))}</p>
        {job.waiting?.waitsFor && (
          <p className={styles.holders}>
            <span>Waits for</span>
            <Link to="/jobs/$id/activity" params={{ id: job.waiting.waitsFor }}>
              {job.waiting.waitsFor}
            </Link>
          </p>
        )}
        {holders.length > 0 && (
          <p className={styles.holders}>
            <span>Slots held by</span>
            {holders.slice(0, SHOWN_HOLDERS).map((id) => (
              <Link key={id} to="/jobs/$id/activity" params={{ id }}>
                {id}
              </Link>
            ))}
            {holders.length > SHOWN_HOLDERS && (
              <Link to="/jobs" search={{ status: ['active'], model: job.model }}>
                and {holders.length - SHOWN_HOLDERS} more
              </Link>
            )}
          </p>
        )}
      </div>
    </div>
  );
}

function Failed({ job }: { job: JobDetail }) {
  const code = job.failedCode ?? 'internal';
  const lines = job.logs.slice(-LAST_LINES);
  const obstacle = whyNoRetry(job);
  return (
    <div className={styles.failed} role="group" aria-label="Failure">
      <Icon name="warning" />
      <div>
        <p className={styles.reason}>{visible(job.failedReason ?? codeMeaning(code))}</p>
        <p>
          <code>{code}</code> {codeMeaning(code, job.failedReason)} {codeAdvice(code, job.failedReason)}{' '}
          {obstacle ?? retryEffect(job)}
        </p>
        {lines.length > 0 && (
          <pre className={styles.lastLines}>{lines.map((line) => visible(plain(line))).join('\n')}</pre>
        )}
      </div>
    </div>
  );
}
