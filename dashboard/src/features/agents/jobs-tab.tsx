import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';

import { fetchJobs } from '../../api/jobs';
import { useLive } from '../../api/live';
import { visible } from '../../lib/ansi';
import { cost } from '../../lib/format';
import { Changing } from '../../ui/access';
import { buttonClass } from '../../ui/button';
import { Empty, Failure, Loading } from '../../ui/states';
import { Panel } from '../../ui/page';
import { StatusBadge, statusNote } from '../../ui/status';
import { cell, Table } from '../../ui/table';
import { Age, Span } from '../../ui/time';
import { useAgent } from './agent-page';

const LATEST = 20;

export function JobsTab() {
  const agent = useAgent();
  const queryKey = ['agent', agent.id, 'jobs'];
  const jobs = useQuery({
    queryKey,
    queryFn: ({ signal }) => fetchJobs({ agentRole: agent.triggerName }, '', { limit: LATEST, signal }),
  });
  useLive([{ queryKey }]);
  if (jobs.isLoadingError) return <Failure error={jobs.error} onRetry={() => void jobs.refetch()} />;
  if (!jobs.data) return <Loading rows={6} height={44} />;
  if (jobs.data.jobs.length === 0) {
    return (
      <Empty
        title="No jobs of this agent"
        action={
          <Changing>
            <Link to="/jobs/new" className={buttonClass()}>
              New job
            </Link>
          </Changing>
        }
      >
        Events that match its triggers start jobs, and submissions can name it.
      </Empty>
    );
  }
  return (
    <Panel
      title="Latest jobs"
      note={
        <Link to="/jobs" search={{ agent: agent.triggerName }}>
          All
        </Link>
      }
    >
      <Table
        label="Latest jobs"
        columns={[
          ['Status'],
          ['Job'],
          ['Model', cell.minor],
          ['Run time', `${cell.number} ${cell.minor}`],
          ['Cost', `${cell.number} ${cell.minor}`],
          ['Created', cell.number],
        ]}
      >
        {jobs.data.jobs.map((job) => (
          <tr key={job.id}>
            <td>
              <StatusBadge status={job.status} note={statusNote(job)} />
            </td>
            <td className={cell.name}>
              <Link to="/jobs/$id/activity" params={{ id: job.id }}>
                {visible(job.title ?? job.name)}
              </Link>
            </td>
            <td className={cell.minor}>{visible(job.model)}</td>
            <td className={`${cell.number} ${cell.minor}`}>
              <Span from={job.processedAt} to={job.finishedAt} />
            </td>
            <td className={`${cell.number} ${cell.minor}`}>{cost(job.usage.costUsd)}</td>
            <td className={cell.number}>
              <Age at={job.createdAt} />
            </td>
          </tr>
        ))}
      </Table>
    </Panel>
  );
}
