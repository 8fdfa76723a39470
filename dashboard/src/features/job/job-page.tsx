import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, Outlet, useLocation, useNavigate, useParams } from '@tanstack/react-router';
import { useEffect, useRef, useState, type ReactNode, type RefObject } from 'react';

import { isMissing } from '../../api/client';
import { cancelJob, hasEnded, jobQuery, publishJob, retryJob, storeJob, type JobDetail } from '../../api/jobs';
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
import { Page, useTitle } from '../../ui/page';
import { useShortcuts } from '../../ui/shortcuts';
import { describe, Failure, Loading } from '../../ui/states';
import { StatusBadge, STATUS_WORDS } from '../../ui/status';
import { Age, Span } from '../../ui/time';
import { toast } from '../../ui/toasts';
import { Banners } from './banners';
import { Chain } from './chain';
import styles from './job-page.module.css';
import { ReplyDialog } from './reply-dialog';
import { cancelEffect, canPublish, whyNoRetry } from './sentences';

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
  if (isMissing(error))
    return (
      <Page
        title="There is no such job"
        actions={
          <Link to="/jobs" className={buttonClass()}>
            Jobs
          </Link>
        }
      >
        <p>
          No job has the id <code>{visible(id)}</code>. It may be mistyped, or the job was deleted: jobs are kept for a
          limited time.
        </p>
      </Page>
    );
  if (!job) {
    return (
      <div className={styles.head}>
        <h1 className="visually-hidden">{title}</h1>
        <BackLink />
        {error ? <Failure error={error} onRetry={() => void refetch()} /> : <Loading rows={4} height={28} />}
      </div>
    );
  }
  return <LoadedJob job={job} title={title} />;
}

function LoadedJob({ job, title }: { job: JobDetail; title: string }) {
  const [isCancelling, setCancelling] = useState(false);
  const titleLine = useRef<HTMLDivElement>(null);
  const askToCancel = () => setCancelling(true);
  return (
    <>
      <ShortHead job={job} title={title} head={titleLine} onCancel={askToCancel} />
      <div className={styles.head}>
        <div className={styles.crumbs}>
          <BackLink />
          <span aria-hidden="true">/</span>
          <code>{job.id}</code>
          <Copy text={job.id} name="Copy the id" />
        </div>
        <div ref={titleLine} className={styles.titleLine}>
          <h1 title={title}>{title}</h1>
          <Actions job={job} onCancel={askToCancel} />
        </div>
        <Facts job={job} />
        <Banners job={job} />
        {job.chainId && <Chain job={job} />}
      </div>
      <Tabs id={job.id} job={job} />
      <Outlet />
      {isCancelling && <CancelDialog job={job} onClose={() => setCancelling(false)} />}
    </>
  );
}

/** The height of the bar at the top, below which the page scrolls. */
const BAR_HEIGHT = 48;

/** Status, title and Cancel while the line of the title is scrolled away. They cover the page, so that nothing moves. */
function ShortHead({
  job,
  title,
  head,
  onCancel,
}: {
  job: JobDetail;
  title: string;
  head: RefObject<HTMLElement | null>;
  onCancel: () => void;
}) {
  const [isAway, setAway] = useState(false);
  useEffect(() => {
    if (!head.current) return;
    const observer = new IntersectionObserver((entries) => setAway(entries.at(-1)?.isIntersecting === false), {
      rootMargin: `-${BAR_HEIGHT}px 0px 0px`,
    });
    observer.observe(head.current);
    return () => observer.disconnect();
  }, [head]);
  return (
    <div className={styles.short}>
      {isAway && (
        <div role="group" aria-label="Job">
          <JobStatus job={job} />
          <span className={styles.shortTitle} title={title}>
            {title}
          </span>
          <CancelButton job={job} onClick={onCancel} />
        </div>
      )}
    </div>
  );
}

function JobStatus({ job }: { job: JobDetail }) {
  const isCancelling = job.status === 'active' && job.cancelRequestedAt !== null;
  return <StatusBadge status={job.status} note={isCancelling ? 'Cancelling' : undefined} />;
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
  return (
    <dl className={styles.facts}>
      <Fact label="Status">
        <JobStatus job={job} />
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
      {job.agentRole && (
        <Fact icon="agent" label="Agent">
          <AgentLink role={job.agentRole} />
        </Fact>
      )}
      <Fact label="Type">{visible(job.name)}</Fact>
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
      {job.processedAt && (
        <Fact label="Cost">
          {usage.costUsd === null ? 'cost unknown' : cost(usage.costUsd)}
          {usage.costKind === 'notional' && ' at list prices'}
        </Fact>
      )}
      {tokens > 0 && <Fact label="Tokens: input and output">{compact(tokens)} tokens</Fact>}
      {usage.turns > 0 && <Fact label="Turns">{counted(usage.turns, 'turn')}</Fact>}
      <Fact label="Created">
        <Age at={job.createdAt} suffix=" ago" />
      </Fact>
      {job.concurrency && <Fact label="Concurrency key">key {visible(job.concurrency.key)}</Fact>}
      {job.cancelledBy && <Fact label="Cancelled by">cancelled by {visible(job.cancelledBy)}</Fact>}
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

/** A change of a job. onEnd: called after a failure, too. */
function useJobChange(id: string, change: (id: string) => Promise<JobDetail>, done: string, onEnd?: () => void) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () => change(id),
    onSuccess: (changed) => {
      storeJob(queries, changed);
      toast(done);
    },
    onError: (error) => {
      toast(describe(error).message, 'error');
      void queries.invalidateQueries({ queryKey: jobQuery(id).queryKey });
    },
    onSettled: () => onEnd?.(),
  });
}

function CancelButton({ job, onClick }: { job: JobDetail; onClick: () => void }) {
  if (hasEnded(job.status)) return null;
  return (
    <Button isChanging kind="danger" disabled={job.cancelRequestedAt !== null} onClick={onClick}>
      {job.cancelRequestedAt ? 'Cancelling…' : 'Cancel'}
    </Button>
  );
}

/** Ask before a job is cancelled. Someone else may cancel it, or it may end, while the dialog is open. */
function CancelDialog({ job, onClose }: { job: JobDetail; onClose: () => void }) {
  const cancel = useJobChange(
    job.id,
    cancelJob,
    job.status === 'active' ? 'The job is being cancelled.' : 'The job is cancelled.',
    onClose,
  );
  const isOver = !cancel.isPending && (hasEnded(job.status) || job.cancelRequestedAt !== null);
  return (
    <Dialog
      title="Cancel this job?"
      onClose={onClose}
      footer={
        <>
          <Button onClick={onClose}>Back</Button>
          {!isOver && (
            <Button kind="danger" isBusy={cancel.isPending} onClick={() => cancel.mutate()}>
              Cancel the job
            </Button>
          )}
        </>
      }
    >
      <p>
        {cancelEffect(job)} {!isOver && job.chainId && 'Its chain ends.'}
      </p>
    </Dialog>
  );
}

function Actions({ job, onCancel }: { job: JobDetail; onCancel: () => void }) {
  const navigate = useNavigate();
  const [isReplying, setReplying] = useState(false);
  const retry = useJobChange(job.id, retryJob, 'The job is queued again.');
  const publish = useJobChange(job.id, publishJob, 'The report is being published.');
  const obstacle = whyNoRetry(job);
  const rerun = () => void navigate({ to: '/jobs/new', search: { from: job.id } });
  useShortcuts([{ keys: 'r', label: 'Run again with other settings', isChanging: true, run: rerun }]);
  return (
    <div className={styles.actions}>
      <CancelButton job={job} onClick={onCancel} />
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
      {canPublish(job) && (
        <Button
          isChanging
          isBusy={publish.isPending}
          title="Write what is missing on GitHub, without running the agent"
          onClick={() => publish.mutate()}
        >
          Publish again
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
