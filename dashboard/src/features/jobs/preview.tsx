import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';

import { jobQuery, shortResultQuery, type JobDetail } from '../../api/jobs';
import { plain, visible } from '../../lib/ansi';
import { compact, cost } from '../../lib/format';
import { AgentLink } from '../../ui/agent-link';
import { buttonClass, IconButton } from '../../ui/button';
import { codeAdvice, codeMeaning } from '../../ui/failures';
import { Failure, Loading } from '../../ui/states';
import { StatusBadge } from '../../ui/status';
import { Age, Span } from '../../ui/time';
import { waitingNote } from '../../ui/waiting';
import styles from './preview.module.css';

/** The time between two looks at the output of a running job, which the feed does not report. */
const REFRESH = 5_000;
const LINES = 40;
const RESULT_LENGTH = 4_000;

/** A job beside the list, or over it where both have no room: its state, why it failed, and the end of its log. */
export function Preview({ id, onClose }: { id: string; onClose: () => void }) {
  const {
    data: job,
    error,
    isLoadingError,
    refetch,
  } = useQuery({
    ...jobQuery(id),
    refetchInterval: ({ state }) => (state.data?.status === 'active' ? REFRESH : false),
  });
  return (
    <aside className={styles.preview} aria-label="Preview of the job">
      <header>
        <code>{id}</code>
        <Link to="/jobs/$id/activity" params={{ id }} className={buttonClass()}>
          Open
        </Link>
        <IconButton icon="close" label="Close the preview" onClick={onClose} />
      </header>
      {isLoadingError ? (
        <Failure error={error} onRetry={() => void refetch()} />
      ) : job ? (
        <Summary job={job} />
      ) : (
        <Loading rows={6} height={26} />
      )}
    </aside>
  );
}

function Summary({ job }: { job: JobDetail }) {
  const { data: result } = useQuery({ ...shortResultQuery(job), enabled: job.status === 'completed', retry: false });
  const facts = [
    ['Agent', job.agentRole && <AgentLink role={job.agentRole} />],
    ['Type', job.name],
    ['Model', `${job.provider}/${job.model} ${job.config.effort}`],
    ['Repository', job.repo],
    [
      'Cost',
      job.processedAt &&
        `${cost(job.usage.costUsd)}, ${compact(job.usage.inputTokens + job.usage.outputTokens)} tokens`,
    ],
  ] as const;
  return (
    <>
      <h2>{visible(job.title ?? job.name)}</h2>
      <p className={styles.state}>
        <StatusBadge status={job.status} />
        {job.status !== 'waiting' && (
          <span>
            <Span from={job.processedAt} to={job.finishedAt} />
          </span>
        )}
        <span>
          <Age at={job.createdAt} suffix=" ago" />
        </span>
      </p>
      <dl>
        {facts.map(
          ([label, value]) =>
            value && (
              <div key={label}>
                <dt>{label}</dt>
                <dd>{typeof value === 'string' ? visible(value) : value}</dd>
              </div>
            ),
        )}
      </dl>
      {job.waiting && <p className={styles.waits}>{waitingNote(job, job.waiting)}</p>}
      {job.status === 'failed' && job.failedCode && (
        <p className={styles.failed}>
          <strong>{visible(job.failedReason ?? codeMeaning(job.failedCode))}</strong>{' '}
          {codeAdvice(job.failedCode, job.failedReason)}
        </p>
      )}
      {job.logs.length > 0 && (
        <>
          <h3>End of the log</h3>
          <pre tabIndex={0} role="region" aria-label="End of the log">
            {job.logs
              .slice(-LINES)
              .map((line) => visible(plain(line)))
              .join('\n')}
          </pre>
        </>
      )}
      {typeof result === 'string' && (
        <>
          <h3>Result</h3>
          <p className={styles.result}>
            {visible(result.slice(0, RESULT_LENGTH))}
            {result.length > RESULT_LENGTH && '…'}
          </p>
        </>
      )}
      {result !== undefined && (typeof result !== 'string' || result.length > RESULT_LENGTH) && (
        <Link to="/jobs/$id/result" params={{ id: job.id }}>
          Open the result
        </Link>
      )}
    </>
  );
}
