import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, Outlet, useLocation, useNavigate, useParams } from '@tanstack/react-router';
import { useEffect, useRef, useState, type ReactNode } from 'react';

import { cancelJob, hasEnded, jobQuery, retryJob, storeJob, type JobDetail } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { compact, cost, counted } from '../../lib/format';
import { Changing } from '../../ui/access';
import { AgentLink } from '../../ui/agent-link';
import { Button, buttonClass } from '../../ui/button';
import { Copy } from '../../ui/copy';
import { Dialog } from '../../ui/dialog';
import { ExternalLink } from '../../ui/external-link';
import { Icon, type IconName } from '../../ui/icons';
import { lastJobs, WAY_BACK } from '../../ui/last-jobs';
import { useTitle } from '../../ui/page';
import { useShortcuts } from '../../ui/shortcuts';
import { describe, Failure, Loading } from '../../ui/states';
import { StatusBadge, STATUS_WORDS } from '../../ui/status';
import { Age, Span } from '../../ui/time';
import { toast } from '../../ui/toasts';
import { Banners } from './banners';
import { Chain } from './chain';
import styles from './job-page.module.css';
import { ReplyDialog } from './reply-dialog';
import { whyNoRetry } from './sentences';

/** The time between two looks at the cost and tokens of a running job, which the feed does not report. */
const REFRESH = 5_000;

const TABS = [
  ['activity', 'Activity'],
  ['log', 'Log'],
  ['changes', 'Changes'],
  ['input', 'Input'],
  ['result', 'Result'],
  ['details', 'Details'],
] as const;

export function JobPage() {
  const { id } = useParams({ from: '/app/jobs/$id' });
  const {
    data: job,
    error,
    refetch,
  } = useQuery({
    ...jobQuery(id),
    refetchInterval: ({ state }) => (state.data?.status === 'active' ? REFRESH : false),
  });
  const title = job ? visible(job.title ?? job.name) : id;
  useTitle(job ? `${STATUS_WORDS[job.status]}: ${title}` : title);
  if (!job) {
    return (
      <div className={styles.head}>
        <BackLink />
        {error ? <Failure error={error} onRetry={() => void refetch()} /> : <Loading rows={4} height={28} />}
      </div>
    );
  }
  return (
    <>
      <div className={styles.head}>
        <div className={styles.crumbs}>
          <BackLink />
          <span aria-hidden="true">/</span>
          <code>{job.id}</code>
          <Copy text={job.id} name="Copy the id" />
        </div>
        <div className={styles.titleLine}>
          <h1 title={title}>{title}</h1>
          <Actions job={job} />
        </div>
        <Facts job={job} />
        <Banners job={job} />
        {job.chainId && <Chain job={job} />}
      </div>
      <Tabs id={id} job={job} />
      <Outlet />
    </>
  );
}

function BackLink() {
  return (
    <Link to="/jobs" search={lastJobs()} state={WAY_BACK} className={styles.back}>
      <Icon name="chevronLeft" size={14} /> Jobs
    </Link>
  );
}

function Fact({ icon, label, children }: { icon?: IconName; label: string; children: ReactNode }) {
  return (
    <div>
      <dt className="visually-hidden">{label}</dt>
      <dd title={label}>
        {icon && <Icon name={icon} size={14} />}
        <span>{children}</span>
      </dd>
    </div>
  );
}

function Facts({ job }: { job: JobDetail }) {
  const { usage } = job;
  const tokens = usage.inputTokens + usage.outputTokens;
  const ref = job.workspaceSetup?.gitRef;
  const repo = job.repo ?? (job.workspaceSetup && repositoryName(job.workspaceSetup.gitRepo));
  const isCancelling = job.status === 'active' && job.cancelRequestedAt !== null;
  return (
    <dl className={styles.facts}>
      <Fact label="Status">
        <StatusBadge status={job.status} note={isCancelling ? 'Cancelling' : undefined} />
      </Fact>
      {job.processedAt && job.status !== 'waiting' && (
        <Fact icon="clock" label="Run time">
          <Span from={job.processedAt} to={job.finishedAt} />
        </Fact>
      )}
      {job.attempts > 1 && (
        <Fact label="Attempts">
          attempt {job.attempts}
          {job.config.maxAttempts > 1 ? ` of ${Math.max(job.attempts, job.config.maxAttempts)}` : ''}
        </Fact>
      )}
      <Fact icon="agent" label="Agent">
        {job.agentRole ? <AgentLink role={job.agentRole} /> : visible(job.name)}
      </Fact>
      {repo && (
        <Fact icon="repo" label="Repository">
          {visible(repo)}
          {ref ? `@${visible(ref)}` : ''}
        </Fact>
      )}
      <Fact icon="chip" label="Model, and where it comes from">
        <span title={`model: ${job.configOrigins['model'] ?? 'unknown'}`}>
          {job.provider}/{visible(job.model)}
        </span>{' '}
        {job.config.effort}
      </Fact>
      {job.processedAt && <Fact label="Cost">{usage.costUsd === null ? 'cost unknown' : cost(usage.costUsd)}</Fact>}
      {tokens > 0 && <Fact label="Tokens: input and output">{compact(tokens)} tokens</Fact>}
      {usage.turns > 0 && <Fact label="Turns">{counted(usage.turns, 'turn')}</Fact>}
      <Fact label="Created">
        <Age at={job.createdAt} suffix=" ago" />
      </Fact>
      {job.concurrency && <Fact label="Concurrency key">key {visible(job.concurrency.key)}</Fact>}
      {job.supersededBy && (
        <Fact label="Superseded by">
          <Link to="/jobs/$id/activity" params={{ id: job.supersededBy }}>
            superseded by {job.supersededBy}
          </Link>
        </Fact>
      )}
      {job.rerunOf && (
        <Fact label="Rerun of">
          <Link to="/jobs/$id/activity" params={{ id: job.rerunOf }}>
            rerun of {job.rerunOf}
          </Link>
        </Fact>
      )}
      {job.followUpOf && (
        <Fact label="Follow-up of">
          <Link to="/jobs/$id/activity" params={{ id: job.followUpOf }}>
            follow-up of {job.followUpOf}
          </Link>
        </Fact>
      )}
      {job.outputs.pullRequestUrl && (
        <Fact icon="external" label="Pull request">
          <ExternalLink url={job.outputs.pullRequestUrl}>pull request</ExternalLink>
        </Fact>
      )}
    </dl>
  );
}

/** The last two parts of a repository's address, such as `octocat/hello-world`. */
function repositoryName(address: string): string {
  return address
    .replace(/\.git$/, '')
    .split(/[/:]/)
    .slice(-2)
    .join('/');
}

function Actions({ job }: { job: JobDetail }) {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const [isAsking, setAsking] = useState(false);
  const [isReplying, setReplying] = useState(false);
  const options = (done: string) => ({
    onSuccess: (changed: JobDetail) => {
      storeJob(queries, changed);
      toast(done);
      setAsking(false);
    },
    onError: (error: unknown) => {
      toast(describe(error).message, 'error');
      setAsking(false);
      void queries.invalidateQueries({ queryKey: jobQuery(job.id).queryKey });
    },
  });
  const cancel = useMutation({
    mutationFn: () => cancelJob(job.id),
    ...options(job.status === 'active' ? 'The job is being cancelled.' : 'The job is cancelled.'),
  });
  const retry = useMutation({ mutationFn: () => retryJob(job.id), ...options('The job is queued again.') });
  const obstacle = whyNoRetry(job);
  const rerun = () => void navigate({ to: '/jobs/new', search: { from: job.id } });
  useShortcuts([{ keys: 'r', label: 'Run again with other settings', isChanging: true, run: rerun }]);
  return (
    <div className={styles.actions}>
      {!hasEnded(job.status) && (
        <Button isChanging kind="danger" disabled={job.cancelRequestedAt !== null} onClick={() => setAsking(true)}>
          {job.cancelRequestedAt ? 'Cancelling…' : 'Cancel'}
        </Button>
      )}
      {job.status === 'failed' && (
        <Button
          isChanging
          isBusy={retry.isPending}
          disabled={obstacle !== undefined}
          title={obstacle}
          onClick={() => retry.mutate()}
        >
          Retry
        </Button>
      )}
      {hasEnded(job.status) && (
        <Button isChanging onClick={() => setReplying(true)}>
          Reply…
        </Button>
      )}
      <Changing>
        <Link to="/jobs/new" search={{ from: job.id }} className={buttonClass()}>
          Rerun…
        </Link>
      </Changing>
      {isReplying && <ReplyDialog job={job} onClose={() => setReplying(false)} />}
      {isAsking && (
        <Dialog
          title="Cancel this job?"
          onClose={() => setAsking(false)}
          footer={
            <>
              <Button onClick={() => setAsking(false)}>Back</Button>
              <Button kind="danger" isBusy={cancel.isPending} onClick={() => cancel.mutate()}>
                Cancel the job
              </Button>
            </>
          }
        >
          <p>
            {job.status === 'active'
              ? 'The agent is stopped with all its processes. Its changes so far stay available.'
              : 'The job does not start.'}{' '}
            {job.chainId && 'Its chain ends.'}
          </p>
        </Dialog>
      )}
    </div>
  );
}

/** Each part of the job shows the attempt that was chosen in another one. */
function sameAttempt({ attempt }: { attempt?: number }): { attempt?: number } {
  return attempt === undefined ? {} : { attempt };
}

function Tabs({ id, job }: { id: string; job: JobDetail }) {
  const navigate = useNavigate();
  useShortcuts(
    TABS.map(([tab, label], index) => ({
      keys: String(index + 1),
      label,
      run: () => void navigate({ to: `/jobs/$id/${tab}`, params: { id }, search: sameAttempt }),
    })),
  );
  const { pathname } = useLocation();
  const bar = useRef<HTMLElement>(null);
  useEffect(() => {
    const current = bar.current?.querySelector<HTMLElement>('[aria-current=page]');
    if (bar.current && current)
      bar.current.scrollLeft = current.offsetLeft - (bar.current.clientWidth - current.offsetWidth) / 2;
  }, [pathname]);
  return (
    <nav ref={bar} aria-label="Parts of the job" className={styles.tabs}>
      {TABS.map(([tab, label]) => (
        <Link
          key={tab}
          to={`/jobs/$id/${tab}`}
          params={{ id }}
          search={sameAttempt}
          activeOptions={{ includeSearch: false }}
          resetScroll={false}
        >
          {label}
          {tab === 'changes' && job.outputs.filesChanged ? (
            <span className={styles.badge}>{job.outputs.filesChanged}</span>
          ) : null}
        </Link>
      ))}
    </nav>
  );
}
