import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';

import { chainQuery, type JobDetail } from '../../api/jobs';
import { Icon } from '../../ui/icons';
import { StatusIcon, STATUS_WORDS } from '../../ui/status';
import styles from './job-page.module.css';

/** The chain that the job belongs to: a path, since each job has at most one child. */
export function Chain({ job }: { job: JobDetail }) {
  const { data } = useQuery(chainQuery(job.chainId ?? ''));
  const jobs = (data?.jobs ?? [job]).toSorted((a, b) => (a.chainDepth ?? 0) - (b.chainDepth ?? 0));
  if (jobs.length < 2 && !job.chainEnded) return null;
  return (
    <div className={styles.chain}>
      <span className={styles.chainLabel}>Chain</span>
      <ol>
        {jobs.map((each) => (
          <li key={each.id}>
            {each.id !== jobs[0]?.id && <Icon name="chevronRight" size={14} />}
            <Link to="/jobs/$id/activity" params={{ id: each.id }} aria-current={each.id === job.id ? 'step' : undefined}>
              <StatusIcon status={each.status} />
              {each.agentRole ?? each.name}
              <span className="visually-hidden">: {STATUS_WORDS[each.status]}</span>
            </Link>
          </li>
        ))}
      </ol>
      {job.chainEnded && <span className={styles.chainEnded}>{job.chainEnded}</span>}
    </div>
  );
}
