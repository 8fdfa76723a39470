import { keepPreviousData, useQuery, useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useEffect, useMemo, useState } from 'react';

import { bundleUrl, hasEnded, patchUrl, type JobDetail } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { bytes, count, counted } from '../../lib/format';
import { readStoredJson, writeStored } from '../../lib/storage';
import { Button } from '../../ui/button';
import { Copy } from '../../ui/copy';
import { Download } from '../../ui/download';
import { Empty, Failure, Loading } from '../../ui/states';
import { Attempts } from './attempts';
import { ChangedFile, fileId, Numbers } from './changed-file';
import styles from './changes-tab.module.css';
import { PatchReader, type PatchIndex } from './patch-reader';
import { PatchTree } from './patch-tree';
import { NO_CHANGES, whyNoBundle, whyNoPatch } from './sentences';
import { useAttempt, useChangeSearch, useJob, useJobSearch } from './use-job';

/** Files whose changes are on the page at once. */
const WINDOW = 50;
/** The time between two requests for the changes of a running attempt. The engine computes them no more often. */
const REFRESH_MS = 5_000;

export function ChangesTab() {
  const job = useJob();
  const attempt = useAttempt(job);
  return (
    <>
      {job.attempts > 1 && (
        <div className={styles.attempts}>
          <Attempts job={job} />
        </div>
      )}
      {attempt > 0 ? (
        <AttemptChanges key={attempt} job={job} attempt={attempt} />
      ) : (
        <Empty title="No changes">{hasEnded(job.status) ? 'The job never ran.' : 'The job has not started.'}</Empty>
      )}
    </>
  );
}

function AttemptChanges({ job, attempt }: { job: JobDetail; attempt: number }) {
  const queries = useQueryClient();
  const reader = useMemo(() => new PatchReader(patchUrl(job.id, attempt)), [job.id, attempt]);
  const isLive = attempt === job.attempts && job.status === 'active';
  const { data, error, refetch, isPlaceholderData } = useQuery({
    queryKey: ['patch', reader.url, isLive ? 'so far' : 'final'],
    queryFn: () => reader.open(),
    retry: false,
    staleTime: Infinity,
    refetchInterval: isLive ? REFRESH_MS : false,
    placeholderData: keepPreviousData, // the changes so far, until the final ones are read
    structuralSharing: sameVersion,
  });
  useEffect(
    () => () => {
      reader.close();
      queries.removeQueries({ queryKey: ['patch', reader.url] });
    },
    [reader, queries],
  );
  if (data === null && !isPlaceholderData) return isLive ? <NoChangesSoFar /> : <NoPatch job={job} attempt={attempt} />;
  if (error && !data)
    return (
      <div className={styles.page}>
        <Failure error={error} onRetry={() => void refetch()} />
      </div>
    );
  if (!data)
    return (
      <div className={styles.page}>
        <Loading rows={8} height={28} />
      </div>
    );
  return <Files job={job} attempt={attempt} reader={reader} patch={data} isLive={isLive} />;
}

/** The earlier answer for a patch that has not changed, so that nothing is drawn again. */
function sameVersion(before: unknown, after: unknown): unknown {
  const [known, next] = [before, after] as (PatchIndex | null | undefined)[];
  return known && known.version === next?.version ? known : after;
}

function NoChangesSoFar() {
  return <Empty title="No changes so far">Changes appear here while the agent works.</Empty>;
}

function NoPatch({ job, attempt }: { job: JobDetail; attempt: number }) {
  const reason = attempt === job.attempts ? whyNoPatch(job) : NO_CHANGES;
  return (
    <Empty
      title={reason === NO_CHANGES ? 'No changes' : 'No patch'}
      action={
        reason !== NO_CHANGES && (
          <div className={styles.bar}>
            <Bundle job={job} attempt={attempt} />
            <Link to="/jobs/$id/log" params={{ id: job.id }}>
              Log
            </Link>
          </div>
        )
      }
    >
      {visible(reason)}
    </Empty>
  );
}

/** The commits of the latest attempt, to download. */
function Bundle({ job, attempt }: { job: JobDetail; attempt: number }) {
  if (attempt !== job.attempts || job.outputs.bundleBytes === null) return null;
  return (
    <Download
      url={bundleUrl(job.id, attempt)}
      file={`${job.id}-${attempt}.bundle`}
      label="Commits"
      title={`The commits as a git bundle of ${bytes(job.outputs.bundleBytes)}: git fetch FILE refs/heads/labrats`}
    />
  );
}

function Files({
  job,
  attempt,
  reader,
  patch,
  isLive,
}: {
  job: JobDetail;
  attempt: number;
  reader: PatchReader;
  patch: PatchIndex;
  isLive: boolean;
}) {
  const { files } = patch;
  const change = useChangeSearch();
  const { view, file: chosen } = useJobSearch();
  const [viewed, toggleViewed] = useViewed(`${job.id} ${attempt}`);
  const [shown, setShown] = useState(() => windowAt(files, chosen));
  useEffect(() => {
    if (chosen !== undefined) document.getElementById(fileId(chosen))?.scrollIntoView();
  }, [chosen]); // not for more files: the reader goes on from where they are
  const noBundle = attempt === job.attempts && !isLive ? whyNoBundle(job) : undefined;
  const added = files.reduce((sum, file) => sum + file.added, 0);
  const removed = files.reduce((sum, file) => sum + file.removed, 0);
  const open = (index: number) => {
    const path = files[index]?.path;
    if (path === undefined) return;
    if (index < shown.first || index >= shown.end) setShown(windowAt(files, path));
    if (path === chosen) document.getElementById(fileId(path))?.scrollIntoView();
    else change((before) => ({ ...before, file: path }));
  };
  return (
    <div className={styles.page}>
      <div className={styles.bar}>
        <p>
          <strong>{counted(files.length, 'file')}</strong> <Numbers added={added} removed={removed} />{' '}
          <span className={styles.faint}>
            {bytes(patch.bytes)}
            {isLive && ', changes so far'}
          </span>
        </p>
        <span className={styles.space} />
        {attempt === job.attempts && <Copy text={`labrats patch ${job.id} | git apply`} label="Copy git apply" />}
        <Download
          url={reader.url}
          file={`${job.id}-${attempt}.patch`}
          label="Patch"
          title="Save the changes as a patch"
        />
        <Bundle job={job} attempt={attempt} />
        <Button
          aria-pressed={view === 'split'}
          onClick={() => change(({ view: _, ...before }) => (view ? before : { ...before, view: 'split' }))}
        >
          {view === 'split' ? 'Unified' : 'Split'}
        </Button>
      </div>
      {noBundle !== undefined && <p className={styles.faint}>{visible(noBundle)}</p>}
      <div className={styles.columns}>
        <PatchTree files={files} chosen={chosen} viewed={viewed} onOpen={open} />
        <div className={styles.files}>
          {shown.first > 0 && (
            <Button kind="quiet" onClick={() => setShown({ ...shown, first: Math.max(0, shown.first - WINDOW) })}>
              Show files before these ({count(shown.first)})
            </Button>
          )}
          {files.slice(shown.first, shown.end).map((file, position) => (
            <ChangedFile
              key={file.path}
              reader={reader}
              version={patch.version}
              index={shown.first + position}
              file={file}
              isSplit={view === 'split'}
              isViewed={viewed.has(file.path)}
              onViewed={toggleViewed}
            />
          ))}
          {shown.end < files.length && (
            <Button kind="quiet" onClick={() => setShown({ ...shown, end: shown.end + WINDOW })}>
              Show more files ({count(files.length - shown.end)})
            </Button>
          )}
        </div>
      </div>
    </div>
  );
}

/**
 * The paths of the files that the reader has viewed, and a function that adds or removes one. They stay in this tab.
 */
function useViewed(patch: string): [ReadonlySet<string>, (path: string) => void] {
  const name = `labrats.viewed.${patch}`;
  const [viewed, setViewed] = useState<ReadonlySet<string>>(() => {
    const stored = readStoredJson('sessionStorage', name);
    return new Set(Array.isArray(stored) ? stored.map(String) : []);
  });
  useEffect(
    () => writeStored('sessionStorage', name, viewed.size > 0 ? JSON.stringify([...viewed]) : undefined),
    [name, viewed],
  );
  const toggle = (path: string) =>
    setViewed((before) =>
      before.has(path) ? new Set([...before].filter((each) => each !== path)) : new Set([...before, path]),
    );
  return [viewed, toggle];
}

/** The files to show with one of them. */
function windowAt(files: PatchIndex['files'], path: string | undefined): { first: number; end: number } {
  const index = Math.max(
    0,
    files.findIndex((file) => file.path === path),
  );
  const first = index < WINDOW ? 0 : index;
  return { first, end: first + WINDOW };
}
