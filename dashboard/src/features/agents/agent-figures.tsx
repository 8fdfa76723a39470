import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';

import { facetsQuery, fetchJobs } from '../../api/jobs';
import { breakdownQuery } from '../../api/stats';
import { costs, count, counted, duration } from '../../lib/format';
import { Age } from '../../ui/time';
import styles from './agents-page.module.css';

const DAYS = 7;

/** The jobs of an agent: those that run now, and the figures of 7 days. role: the name that jobs have recorded. */
export function AgentFigures({ role }: { role: string }) {
  const { data: active } = useQuery(facetsQuery({ status: ['active'] }));
  const { data: rows } = useQuery(breakdownQuery('agentRole', DAYS));
  const row = rows?.find(({ value }) => value === role);
  const failed = { status: ['failed' as const], agentRole: role };
  const { data: failures } = useQuery({
    queryKey: ['jobs', 'last failure', role],
    queryFn: ({ signal }) => fetchJobs(failed, '', { limit: 1, signal }),
    enabled: Boolean(row?.failed),
  });
  const failure = failures?.jobs[0];
  if (!active || !rows) return <p className={styles.none}>…</p>;
  const running = active.agentRole.find(({ value }) => value === role)?.count ?? 0;
  const ended = row ? row.completed + row.failed : 0;
  const parts: ReactNode[] = [
    <Link key="running" to="/jobs" search={{ agent: role, status: ['active'] }}>
      {count(running)} running
    </Link>,
    ended === 0 || !row
      ? `no job has ended in ${DAYS} days`
      : `${Math.round((row.completed / ended) * 100)} % of ${counted(ended, 'job')} succeeded in ${DAYS} days`,
    row && costs(row),
    row && row.medianSeconds !== null && `median ${duration(row.medianSeconds * 1000)}`,
    failure && (
      <Link key="failure" to="/jobs/$id/activity" params={{ id: failure.id }}>
        last failure <Age at={failure.finishedAt ?? failure.createdAt} suffix=" ago" />
      </Link>
    ),
  ].filter(Boolean);
  return (
    <p className={styles.none} title={`The jobs of ${role}`}>
      {parts.map((part, index) => (
        <span key={index}>
          {index > 0 && ' · '}
          {part}
        </span>
      ))}
    </p>
  );
}
