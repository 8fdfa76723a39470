import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';

import { chainQuery, type JobDetail, type JobItem } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { Icon } from '../../ui/icons';
import { Failure } from '../../ui/states';
import { StatusIcon, STATUS_WORDS } from '../../ui/status';
import styles from './job-page.module.css';
import { CONDITIONS } from './sentences';

/** The chain that the job belongs to: a path, since each job has at most one child. */
export function Chain({ job }: { job: JobDetail }) {
  const { data, error, isLoadingError, refetch } = useQuery(chainQuery(job.chainId ?? ''));
  if (isLoadingError) return <Failure error={error} onRetry={() => void refetch()} />;
  const jobs = (data?.jobs ?? [job]).toSorted((a, b) => (a.chainDepth ?? 0) - (b.chainDepth ?? 0));
  const next = jobs.at(-1)?.id === job.id && !job.chainEnded ? job.chainNext : null;
  if (jobs.length < 2 && !job.chainEnded && !next) return null;
  return (
    <div className={styles.chain}>
      {job.chainId ? (
        <Link
          to="/jobs"
          search={{ chainId: job.chainId, sort: 'oldest' }}
          className={styles.chainLabel}
          title="List the jobs of this chain"
        >
          Chain
        </Link>
      ) : (
        <span className={styles.chainLabel}>Chain</span>
      )}
      <ol>
        {jobs.map((each) => (
          <li key={each.id}>
            {each.id !== jobs[0]?.id && <Icon name="chevronRight" size={14} />}
            {each.id === job.id ? (
              <span aria-current="step" className={styles.link}>
                <Agent job={each} />
              </span>
            ) : (
              <Link to="/jobs/$id/activity" params={{ id: each.id }} className={styles.link}>
                <Agent job={each} />
              </Link>
            )}
          </li>
        ))}
        {next && (
          <li>
            <Icon name="chevronRight" size={14} />
            <span className={`${styles.link} ${styles.follower}`}>
              {visible(next.agent)} {CONDITIONS[next.condition]}
            </span>
          </li>
        )}
      </ol>
      {job.chainEnded && <span className={styles.chainEnded}>{job.chainEnded}</span>}
    </div>
  );
}

function Agent({ job }: { job: JobItem }) {
  return (
    <>
      <StatusIcon status={job.status} />
      {visible(job.agentRole ?? job.name)}
      <span className="visually-hidden">: {STATUS_WORDS[job.status]}</span>
    </>
  );
}
