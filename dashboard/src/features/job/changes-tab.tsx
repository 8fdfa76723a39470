import { useQuery } from '@tanstack/react-query';
import { memo, useState } from 'react';

import { ApiError } from '../../api/client';
import { patchQuery, type JobDetail } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { bytes, count, counted } from '../../lib/format';
import { Button } from '../../ui/button';
import { Copy } from '../../ui/copy';
import { Icon } from '../../ui/icons';
import { Empty, Failure, Loading } from '../../ui/states';
import { Attempts } from './attempts';
import styles from './changes-tab.module.css';
import { parseInWorker } from './parse-in-worker';
import { isFolded, pairs, type FilePatch, type Hunk, type PatchLine } from './patch';
import { useAttempt, useChangeSearch, useJob, useJobSearch } from './use-job';

const FIRST_LINES = 2_000;

export function ChangesTab() {
  const job = useJob();
  return (
    <>
      {job.attempts > 1 && <div className={styles.attempts}><Attempts job={job} /></div>}
      <AttemptChanges job={job} />
    </>
  );
}

function AttemptChanges({ job }: { job: JobDetail }) {
  const attempt = useAttempt(job);
  const isOver = attempt > 0 && (attempt < job.attempts || job.status !== 'active');
  const patch = useQuery({ ...patchQuery(job.id, attempt), enabled: isOver, retry: false });
  const files = useQuery({
    queryKey: ['parsed-patch', job.id, attempt],
    enabled: patch.data !== undefined,
    queryFn: ({ signal }) => parseInWorker(patch.data ?? '', signal),
    staleTime: Infinity,
    structuralSharing: false,
  });
  if (!isOver) {
    return (
      <Empty title={job.attempts === 0 ? 'No changes' : 'The changes are not available yet'}>
        {job.attempts === 0 ? 'The job never ran.' : 'The patch is made when the attempt ends.'}
      </Empty>
    );
  }
  if (patch.error instanceof ApiError && patch.error.status === 404) return <Empty title="No changes">The attempt changed no file, or its output was deleted.</Empty>;
  if (patch.error) return <div className={styles.page}><Failure error={patch.error} onRetry={() => void patch.refetch()} /></div>;
  if (files.error) return <div className={styles.page}><Failure error={files.error} onRetry={() => void files.refetch()} /></div>;
  if (!files.data) return <div className={styles.page}><Loading rows={8} height={28} /></div>;
  return <Files job={job} attempt={attempt} files={files.data} size={patch.data?.length ?? 0} />;
}

function Files({ job, attempt, files, size }: { job: JobDetail; attempt: number; files: readonly FilePatch[]; size: number }) {
  const change = useChangeSearch();
  const { view, file: chosen } = useJobSearch();
  const [viewed, setViewed] = useState<ReadonlySet<string>>(new Set());
  const added = files.reduce((sum, file) => sum + file.added, 0);
  const removed = files.reduce((sum, file) => sum + file.removed, 0);
  const toggle = (path: string) => setViewed((before) => (before.has(path) ? new Set([...before].filter((each) => each !== path)) : new Set([...before, path])));
  const open = (path: string) => {
    change((before) => ({ ...before, file: path }));
    document.getElementById(fileId(path))?.scrollIntoView();
  };
  return (
    <div className={styles.page}>
      <div className={styles.bar}>
        <p><strong>{counted(files.length, 'file')}</strong> <Numbers added={added} removed={removed} /> <span className={styles.faint}>{bytes(size)}</span></p>
        <span className={styles.space} />
        {attempt === job.attempts && <Copy text={`labrats patch ${job.id} | git apply`} label="Copy git apply" />}
        <a className={styles.download} href={`/api/jobs/${job.id}/patch?attempt=${attempt}`} download={`${job.id}-${attempt}.patch`}><Icon name="download" size={14} /> Patch</a>
        <Button aria-pressed={view === 'split'} onClick={() => change(({ view: _, ...before }) => (view ? before : { ...before, view: 'split' }))}>
          {view === 'split' ? 'Unified' : 'Split'}
        </Button>
      </div>
      <div className={styles.columns}>
        <nav aria-label="Changed files" className={styles.tree}>
          <ul>
            {files.map((file) => (
              <li key={file.path}>
                <button type="button" aria-current={file.path === chosen || undefined} title={visible(file.path)} onClick={() => open(file.path)} data-viewed={viewed.has(file.path) || undefined}>
                  <span className={styles.path}><bdi>{visible(file.path)}</bdi></span>
                  <Numbers added={file.added} removed={file.removed} />
                </button>
              </li>
            ))}
          </ul>
        </nav>
        <div className={styles.files}>
          {files.map((file) => <File key={file.path} file={file} isSplit={view === 'split'} isViewed={viewed.has(file.path)} onViewed={toggle} />)}
        </div>
      </div>
    </div>
  );
}

function fileId(path: string): string {
  return `file-${encodeURIComponent(path)}`;
}

function Numbers({ added, removed }: { added: number; removed: number }) {
  return (
    <span className={styles.sums}>
      <span className={styles.plus} aria-label={`${count(added)} lines added`} role="img">+{count(added)}</span>{' '}
      <span className={styles.minus} aria-label={`${count(removed)} lines removed`} role="img">−{count(removed)}</span>
    </span>
  );
}

const CHANGE_WORDS = { added: 'new', deleted: 'deleted', renamed: 'renamed', modified: '' } as const;

const File = memo(function File({ file, isSplit, isViewed, onViewed }: { file: FilePatch; isSplit: boolean; isViewed: boolean; onViewed: (path: string) => void }) {
  const [isShown, setShown] = useState(!isFolded(file));
  const word = CHANGE_WORDS[file.change];
  const path = visible(file.path);
  return (
    <section id={fileId(file.path)} aria-label={path} className={styles.file}>
      <header>
        <h2>
          {file.oldPath && <span className={styles.faint}>{visible(file.oldPath)} → </span>}
          {path}
        </h2>
        {word && <span className={styles.word}>{word}</span>}
        <Numbers added={file.added} removed={file.removed} />
        <label className={styles.viewed}><input type="checkbox" checked={isViewed} onChange={() => onViewed(file.path)} /> Viewed</label>
      </header>
      {!isViewed && (file.isBinary ? (
        <p className={styles.folded}>A binary file.</p>
      ) : file.hunks.length === 0 ? (
        <p className={styles.folded}>{file.change === 'renamed' ? 'Renamed without changes.' : 'No line changed.'}</p>
      ) : isShown ? (
        <Hunks file={file} isSplit={isSplit} />
      ) : (
        <p className={styles.folded}>A large or generated file. <Button kind="quiet" onClick={() => setShown(true)}>Show {count(file.added + file.removed)} changed lines</Button></p>
      ))}
    </section>
  );
});

function Hunks({ file, isSplit }: { file: FilePatch; isSplit: boolean }) {
  const [limit, setLimit] = useState(FIRST_LINES);
  const hasColumns = isSplit && file.added > 0 && file.removed > 0; // one of two columns would be empty
  const shown = file.hunks.reduce<{ hunks: Hunk[]; lines: number }>((before, hunk) => {
    const lines = hunk.lines.slice(0, Math.max(0, limit - before.lines));
    return { hunks: lines.length > 0 ? [...before.hunks, { ...hunk, lines }] : before.hunks, lines: before.lines + hunk.lines.length };
  }, { hunks: [], lines: 0 });
  return (
    <div className={styles.scroller} tabIndex={0} role="region" aria-label={`Changes of ${visible(file.path)}`}>
      <table className={hasColumns ? styles.split : styles.unified}>
        {hasColumns && <colgroup><col className={styles.numbers} /><col /><col className={styles.numbers} /><col /></colgroup>}
        <tbody>
          {shown.hunks.map((hunk, index) => <HunkRows key={index} hunk={hunk} isSplit={hasColumns} />)}
        </tbody>
      </table>
      {shown.lines > limit && <Button kind="quiet" onClick={() => setLimit(limit + FIRST_LINES)}>Show more of {count(shown.lines)} lines</Button>}
    </div>
  );
}

function HunkRows({ hunk, isSplit }: { hunk: Hunk; isSplit: boolean }) {
  return (
    <>
      <tr className={styles.hunk}><td colSpan={isSplit ? 4 : 3}>{visible(hunk.header)}</td></tr>
      {isSplit
        ? pairs(hunk.lines).map(([left, right], index) => <tr key={index}><Half line={left} number={left?.before} /><Half line={right} number={right?.after} /></tr>)
        : hunk.lines.map((line, index) => (
          <tr key={index} className={styles[line.kind]}>
            <td className={styles.number}>{line.before}</td>
            <td className={styles.number}>{line.after}</td>
            <td className={styles.code}><span className={styles.mark}>{MARKS[line.kind]}</span>{visible(line.text)}</td>
          </tr>
        ))}
    </>
  );
}

const MARKS = { added: '+', removed: '−', context: ' ', note: ' ' } as const;

function Half({ line, number }: { line: PatchLine | undefined; number: number | undefined }) {
  const kind = line ? styles[line.kind] : styles.nothing;
  return (
    <>
      <td className={`${styles.number} ${kind}`}>{number}</td>
      <td className={`${styles.code} ${kind}`}>{line && <><span className={styles.mark}>{MARKS[line.kind]}</span>{visible(line.text)}</>}</td>
    </>
  );
}
