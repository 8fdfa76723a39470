import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';

import { attemptsQuery } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { compact, cost, count, duration, fullTime, NOTHING } from '../../lib/format';
import { Copy } from '../../ui/copy';
import { Panel } from '../../ui/page';
import { Failure } from '../../ui/states';
import { STATUS_WORDS } from '../../ui/status';
import { Span } from '../../ui/time';
import pageStyles from './job-page.module.css';
import { ReportPanel } from './report-panel';
import styles from './tables.module.css';
import { useJob } from './use-job';

export function DetailsTab() {
  const job = useJob();
  const { usage, outputs, session, callback } = job;
  const times = [
    ['Created', job.createdAt],
    ['Latest attempt started', job.processedAt],
    ['Finished', job.finishedAt],
    ['Deadline', job.deadlineAt],
    ['Cancellation requested', job.cancelRequestedAt],
  ] as const;
  const origin = window.location.origin;
  const commands = [
    ['Show', `labrats job ${job.id}`],
    ['Follow the log', `labrats logs -f ${job.id}`],
    ['Apply the changes', `labrats patch ${job.id} | git apply`],
    ['With curl', `curl -s ${origin}/api/jobs/${job.id} -H "Authorization: Bearer $KEY"`],
  ] as const;
  return (
    <div className={pageStyles.body}>
      <Panel title="Times">
        <dl className={styles.facts}>
          {times.map(
            ([label, at]) =>
              at && (
                <div key={label}>
                  <dt>{label}</dt>
                  <dd>
                    <time dateTime={at}>{fullTime(new Date(at))}</time>
                  </dd>
                </div>
              ),
          )}
          <div>
            <dt>Attempts</dt>
            <dd>{job.attempts}</dd>
          </div>
        </dl>
      </Panel>
      <Panel title="Usage">
        <dl className={styles.facts}>
          <div>
            <dt>Cost</dt>
            <dd>
              {cost(usage.costUsd)}
              {usage.costUsd === null && ' (the price of the model is unknown)'}
              {usage.costKind === 'notional' && ' at list prices (a subscription paid)'}
            </dd>
          </div>
          <div>
            <dt>Input tokens</dt>
            <dd title={count(usage.inputTokens)}>
              {compact(usage.inputTokens)}
              {usage.cacheReadTokens > 0 && `, and ${compact(usage.cacheReadTokens)} read from the cache`}
            </dd>
          </div>
          <div>
            <dt>Output tokens</dt>
            <dd title={count(usage.outputTokens)}>
              {compact(usage.outputTokens)}
              {usage.reasoningTokens > 0 && `, of which ${compact(usage.reasoningTokens)} for reasoning`}
            </dd>
          </div>
          <div>
            <dt>Turns</dt>
            <dd>{count(usage.turns)}</dd>
          </div>
          <div>
            <dt>Time in a slot</dt>
            <dd>{duration(usage.seconds * 1000)}</dd>
          </div>
        </dl>
      </Panel>
      {job.attempts > 1 && <AttemptList id={job.id} />}
      <Panel title="Outputs and session">
        <dl className={styles.facts}>
          <div>
            <dt>Branch</dt>
            <dd>{outputs.branch ? visible(outputs.branch) : NOTHING}</dd>
          </div>
          <div>
            <dt>Commit</dt>
            <dd>{outputs.commit ? <code>{outputs.commit}</code> : NOTHING}</dd>
          </div>
          <div>
            <dt>Changed files</dt>
            <dd>{outputs.filesChanged ?? NOTHING}</dd>
          </div>
          {(job.isolation ?? job.attempts > 0) && (
            <div>
              <dt>Isolation</dt>
              <dd>{job.isolation ?? 'not recorded'}</dd>
            </div>
          )}
          {job.refusedHosts.length > 0 && (
            <div>
              <dt>Hosts refused to the agent</dt>
              <dd>
                {job.refusedHosts.map((host) => (
                  <div key={host}>
                    <code>{visible(host)}</code>
                  </div>
                ))}
              </dd>
            </div>
          )}
          <div>
            <dt>Session</dt>
            <dd>
              {session ? (
                <>
                  <code>{session.id}</code> of {session.provider}, from attempt {session.attempt}
                </>
              ) : (
                NOTHING
              )}
            </dd>
          </div>
          <div>
            <dt>Answered by</dt>
            <dd>{job.answeredBy ?? NOTHING}</dd>
          </div>
          {job.keyExposed && (
            <div>
              <dt>Model key</dt>
              <dd>The agent could read the login of its model.</dd>
            </div>
          )}
          <div>
            <dt>Callback</dt>
            <dd>
              {callback
                ? `${callback.phase}${callback.problem ? `: ${visible(callback.problem)}` : ', delivered'}`
                : NOTHING}
            </dd>
          </div>
          <div>
            <dt>Owner</dt>
            <dd>{job.owner}</dd>
          </div>
          {job.accountName && (
            <div>
              <dt>Slot of</dt>
              <dd>{job.accountName}</dd>
            </div>
          )}
          {job.k8sJobName && (
            <div>
              <dt>Kubernetes Job</dt>
              <dd>
                <code>{job.k8sJobName}</code>
              </dd>
            </div>
          )}
          {job.executorPodName && (
            <div>
              <dt>Pod</dt>
              <dd>
                <code>{job.executorPodName}</code>
              </dd>
            </div>
          )}
        </dl>
      </Panel>
      <ReportPanel job={job} />
      <Panel title="On the command line">
        <dl className={styles.facts}>
          {commands.map(([label, command]) => (
            <div key={label}>
              <dt>{label}</dt>
              <dd className={styles.command}>
                <code>{command}</code>
                <Copy text={command} name={`Copy: ${label}`} />
              </dd>
            </div>
          ))}
        </dl>
      </Panel>
    </div>
  );
}

function AttemptList({ id }: { id: string }) {
  const { data, error, refetch } = useQuery(attemptsQuery(id));
  return (
    <Panel title="Attempts">
      {error && <Failure error={error} onRetry={() => void refetch()} />}
      <table className={styles.table}>
        <thead>
          <tr>
            <th scope="col">Attempt</th>
            <th scope="col">Outcome</th>
            <th scope="col">Started</th>
            <th scope="col">Run time</th>
            <th scope="col">Cost</th>
          </tr>
        </thead>
        <tbody>
          {data?.map((attempt) => (
            <tr key={attempt.attempt}>
              <td>
                <Link to="/jobs/$id/activity" params={{ id }} search={{ attempt: attempt.attempt }}>
                  {attempt.attempt}
                </Link>
              </td>
              <td>
                {attempt.failedCode ?? STATUS_WORDS[attempt.status]}
                {attempt.failedReason && `: ${visible(attempt.failedReason)}`}
              </td>
              <td>{attempt.startedAt ? fullTime(new Date(attempt.startedAt)) : NOTHING}</td>
              <td>
                <Span
                  from={attempt.startedAt}
                  to={attempt.finishedAt ?? (attempt.status === 'active' ? null : attempt.startedAt)}
                />
              </td>
              <td>{cost(attempt.usage?.costUsd)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Panel>
  );
}
