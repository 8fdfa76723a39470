import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';

import { useActivity } from '../../api/activities';
import {
  endedFacetsQuery,
  facetsQuery,
  fetchJobs,
  placesQuery,
  type JobFacets,
  type JobItem,
  type Status,
} from '../../api/jobs';
import { breakdownQuery, sumOfCosts } from '../../api/stats';
import { queueQuery } from '../../api/models';
import { visible } from '../../lib/ansi';
import { clock, cost, count, counted, NOTHING } from '../../lib/format';
import { daysAgo } from '../../lib/times';
import { Changing } from '../../ui/access';
import { Page, Panel } from '../../ui/page';
import { ProviderList } from '../../ui/providers';
import { Empty, Failure, Loading } from '../../ui/states';
import { NamedStatusIcon, StatusIcon } from '../../ui/status';
import { Age, Span } from '../../ui/time';
import { inQueueOrder, waitingNote } from '../../ui/waiting';
import { codeMeaning } from '../../ui/failures';
import { buttonClass } from '../../ui/button';
import { Attention } from './attention';
import { FirstSteps, useShowsFirstSteps } from './first-steps-panel';
import styles from './overview-page.module.css';

const RUNNING_LIMIT = 8;

export function OverviewPage() {
  const today = useQuery(endedFacetsQuery(1));
  const ended = useQuery(breakdownQuery('model', 1));
  const everything = useQuery(facetsQuery({}));
  const running = useQuery(jobsIn('active'));
  const waiting = useQuery(jobsIn('waiting'));
  const failed = useQuery(recentFailures);
  const { data: places } = useQuery(placesQuery(waiting.data?.jobs.map((job) => job.id) ?? []));
  const noteOf = (job: JobItem) => {
    const place = places?.[job.id];
    return place && waitingNote(job, place);
  };
  const queue = { ...waiting, data: waiting.data && { jobs: inQueueOrder(waiting.data.jobs, places ?? {}) } };
  const total = sumOfCosts(ended.data);
  const [showsFirstSteps, hideFirstSteps] = useShowsFirstSteps();
  const isEmpty = everything.data?.status.length === 0;

  if (isEmpty) {
    return (
      <Page title="Overview">
        <Empty
          title="No jobs so far"
          action={
            <Changing>
              <Link to="/jobs/new" className={buttonClass('primary')}>
                New job
              </Link>
            </Changing>
          }
        >
          A job runs an agent with a prompt. Its log, changes and cost appear here while it runs.
        </Empty>
        <div className={styles.columns}>
          {showsFirstSteps && <FirstSteps onHide={hideFirstSteps} />}
          <Panel title="Providers">
            <ProviderList />
          </Panel>
        </div>
      </Page>
    );
  }
  const number = (facets: JobFacets | undefined, status: Status) =>
    facets && (facets.status.find((each) => each.value === status)?.count ?? 0);
  const unknown = [today, everything, ended, failed].find((query) => query.isLoadingError);
  return (
    <Page title="Overview">
      {unknown && <Failure error={unknown.error} onRetry={() => void unknown.refetch()} />}
      <dl className={styles.figures}>
        <Figure label="Running now" value={number(everything.data, 'active')} status={['active']} />
        <Figure label="Waiting" value={number(everything.data, 'waiting')} status={['waiting']} />
        <Figure
          label="Failed in 24 h"
          value={number(today.data, 'failed')}
          status={['failed']}
          isRecent
          isBad={Boolean(number(today.data, 'failed'))}
        />
        <Figure label="Completed in 24 h" value={number(today.data, 'completed')} status={['completed']} isRecent />
        <div>
          <dt>Cost in 24 h</dt>
          <dd>{total.unknownCosts > 0 && !total.costUsd ? 'unknown' : cost(total.costUsd)}</dd>
          {total.unknownCosts > 0 && (
            <dd className={styles.unknown}>
              <Link to="/stats" search={{ window: '24h' }}>
                {total.costUsd ? 'or more: ' : ''}
                {counted(total.unknownCosts, 'job')} without a known cost
              </Link>
            </dd>
          )}
        </div>
      </dl>
      <div className={styles.columns}>
        {showsFirstSteps && <FirstSteps onHide={hideFirstSteps} />}
        <Attention />
        <Panel
          title="Running now"
          note={
            <Link to="/jobs" search={{ status: ['active'] }}>
              All
            </Link>
          }
        >
          <JobLines
            query={running}
            empty="No agent is running."
            detail={(job) => <Span from={job.processedAt} to={null} />}
          />
        </Panel>
        <Panel
          title="Failures of the last 24 hours"
          note={
            <Link to="/jobs" search={{ status: ['failed'], ended: '24h' }}>
              All
            </Link>
          }
        >
          {!today.isLoadingError && <FailureGroups groups={today.data?.failedCode} jobs={failed.data?.jobs ?? []} />}
        </Panel>
        <Panel
          title="Waiting"
          note={
            <Link to="/jobs" search={{ status: ['waiting'] }}>
              All
            </Link>
          }
        >
          <JobLines
            query={queue}
            empty="No job is waiting."
            note={(job) => noteOf(job)}
            detail={(job) => <Age at={job.createdAt} />}
          />
        </Panel>
        <Models />
      </div>
    </Page>
  );
}

function jobsIn(status: Status) {
  return {
    queryKey: ['overview', status],
    queryFn: ({ signal }: { signal: AbortSignal }) =>
      fetchJobs({ status: [status] }, '', {
        limit: RUNNING_LIMIT,
        order: status === 'waiting' ? 'oldest' : 'newest',
        signal,
      }),
  } as const;
}

const recentFailures = {
  queryKey: ['overview', 'failed'],
  queryFn: ({ signal }: { signal: AbortSignal }) =>
    fetchJobs({ status: ['failed'], endedFrom: daysAgo(1) }, '', { limit: 50, signal }),
} as const;

function Figure({
  label,
  value,
  status,
  isRecent = false,
  isBad = false,
}: {
  label: string;
  value: number | undefined;
  status: Status[];
  isRecent?: boolean;
  isBad?: boolean;
}) {
  return (
    <div className={isBad ? styles.bad : undefined}>
      <dt>{label}</dt>
      <dd>
        <Link
          to="/jobs"
          search={{ status, ...(isRecent && { ended: '24h' as const }) }}
          aria-label={`${label}: ${value === undefined ? 'unknown' : count(value)}`}
        >
          {value === undefined ? NOTHING : count(value)}
        </Link>
      </dd>
    </div>
  );
}

interface JobsResult {
  data: { jobs: readonly JobItem[] } | undefined;
  error: unknown;
  isLoadingError: boolean;
  refetch: () => unknown;
}

/** note: why a job waits. detail: the number at the end of the line. */
function JobLines({
  query,
  empty,
  note,
  detail,
}: {
  query: JobsResult;
  empty: string;
  note?: (job: JobItem) => string | undefined;
  detail: (job: JobItem) => ReactNode;
}) {
  if (query.isLoadingError)
    return (
      <div className={styles.pad}>
        <Failure error={query.error} onRetry={() => void query.refetch()} />
      </div>
    );
  if (!query.data)
    return (
      <div className={styles.pad}>
        <Loading rows={3} height={36} />
      </div>
    );
  if (query.data.jobs.length === 0) return <p className={styles.none}>{empty}</p>;
  return (
    <ul>
      {query.data.jobs.map((job) => (
        <li key={job.id} className={styles.line}>
          <NamedStatusIcon status={job.status} />
          <div className={styles.job}>
            <Link to="/jobs/$id/activity" params={{ id: job.id }}>
              {visible(job.title ?? job.name)}
            </Link>
            <Note job={job} waiting={note?.(job)} />
          </div>
          <span className={styles.model}>{visible(job.model)}</span>
          <span className={styles.number}>{detail(job)}</span>
        </li>
      ))}
    </ul>
  );
}

/** What the agent of a running job does now, or why a job waits. */
function Note({ job, waiting }: { job: JobItem; waiting: string | undefined }) {
  const activity = useActivity(job);
  const note = activity === null ? waiting : visible(activity);
  return (
    note !== undefined && (
      <span className={styles.note} title={note}>
        {note}
      </span>
    )
  );
}

function FailureGroups({ groups, jobs }: { groups: { value: string; count: number }[] | undefined; jobs: JobItem[] }) {
  if (!groups)
    return (
      <div className={styles.pad}>
        <Loading rows={3} height={36} />
      </div>
    );
  if (groups.length === 0) return <p className={styles.none}>No job has failed.</p>;
  return (
    <ul>
      {groups.map((group) => {
        const latest = jobs.find((job) => job.failedCode === group.value);
        return (
          <li key={group.value} className={styles.group}>
            <Link to="/jobs" search={{ status: ['failed'], code: group.value, ended: '24h' }}>
              <StatusIcon status="failed" />
              <code>{group.value}</code>
              <span className={styles.number}>{counted(group.count, 'job')}</span>
            </Link>
            <p>{codeMeaning(group.value)}</p>
            {latest && (
              <p className={styles.latest}>
                Latest:{' '}
                <Link to="/jobs/$id/activity" params={{ id: latest.id }}>
                  {visible(latest.title ?? latest.name)}
                </Link>
              </p>
            )}
          </li>
        );
      })}
    </ul>
  );
}

/** The queue of each model. */
function Models() {
  const { data, error, isLoadingError, refetch } = useQuery(queueQuery);
  if (isLoadingError)
    return (
      <Panel title="Models">
        <div className={styles.pad}>
          <Failure error={error} onRetry={() => void refetch()} />
        </div>
      </Panel>
    );
  const list = data?.queues ?? [];
  if (list.length === 0) return null;
  return (
    <Panel title="Models">
      <ul>
        {list.map((queue) => (
          <li key={`${queue.provider}/${queue.model}`} className={styles.modelLine}>
            <div className={styles.job}>
              <Link to="/jobs" search={{ model: queue.model }}>
                {queue.provider}/{visible(queue.model)}
              </Link>
              <span className={styles.note}>
                {queue.slots === 0 ? 'paused, ' : queue.pausedUntil && <>paused until {clock(queue.pausedUntil)}, </>}
                {count(queue.waiting)} waiting
                {queue.oldestCreatedAt && (
                  <>
                    , oldest <Age at={queue.oldestCreatedAt} />
                  </>
                )}
              </span>
            </div>
            <Slots used={queue.active} slots={queue.slots} />
            <span className={styles.number}>
              {queue.active}/{queue.slots}
            </span>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function Slots({ used, slots }: { used: number; slots: number }) {
  const share = slots === 0 ? 0 : Math.min(1, used / slots);
  return (
    <span className={styles.slots} role="img" aria-label={`${used} of ${slots} slots busy`}>
      <span style={{ width: `${share * 100}%` }} />
    </span>
  );
}
