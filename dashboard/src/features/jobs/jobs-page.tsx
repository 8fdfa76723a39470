import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useCallback, useEffect, useMemo, useRef, useState } from 'react';

import { cancelJob, facetsQuery, forEachJob, hasEnded, retryJob, STATUSES, type JobFacets, type JobFilter, type JobItem, type Status } from '../../api/jobs';
import { count, counted } from '../../lib/format';
import { Button, buttonClass } from '../../ui/button';
import { Dialog } from '../../ui/dialog';
import { Icon } from '../../ui/icons';
import { useTitle } from '../../ui/page';
import { useShortcuts } from '../../ui/shortcuts';
import { Empty, Failure, Loading } from '../../ui/states';
import { STATUS_WORDS, StatusIcon } from '../../ui/status';
import { toast } from '../../ui/toasts';
import { NARROW, useMedia } from '../../ui/use-media';
import { useVirtualRows } from '../../ui/use-virtual-rows';
import { JobRow } from './job-row';
import { Preview } from './preview';
import styles from './jobs-page.module.css';
import { filterOf, hasFilters, WINDOWS, type JobsSearch } from './search';
import { useJobs } from './use-jobs';

const HEADER_HEIGHT = 33;
const ROW_HEIGHT = { wide: 44, narrow: 68 };
const MINUTE = 60_000;
/** The pause in typing after which a search begins. */
const TYPING_MS = 200;
/** From this width on, a job fits beside the list. */
const WIDE = '(width >= 1100px)';

export function JobsPage() {
  const search = useSearch({ from: '/app/jobs' });
  const navigate = useNavigate({ from: '/jobs' });
  const [openedAt] = useState(() => Math.floor(Date.now() / MINUTE) * MINUTE);
  const key = JSON.stringify(filterOf(search, openedAt));
  const filter = useMemo(() => JSON.parse(key) as JobFilter, [key]); // the same object until a filter changes
  const facets = useQuery(facetsQuery(withoutStatus(filter)));
  const change = (edit: Partial<Record<keyof JobsSearch, JobsSearch[keyof JobsSearch] | undefined>>) =>
    navigate({ search: (before: JobsSearch) => ({ ...before, ...edit }) as JobsSearch, replace: true });
  useTitle('Jobs');

  return (
    <div className={styles.page}>
      <div className={styles.head}>
        <h1>Jobs</h1>
        <Filters search={search} facets={facets.data} onChange={change} />
        <Counts search={search} facets={facets.data} onChange={(status) => change({ status })} />
      </div>
      <JobTable key={key} search={search} filter={filter} total={total(search, facets.data)} onPreview={(job) => void change({ job })} />
    </div>
  );
}

function withoutStatus<T extends { status?: Status[] }>(filter: T): Omit<T, 'status'> {
  const { status: _, ...rest } = filter;
  return rest;
}

function total(search: JobsSearch, facets: JobFacets | undefined): number | undefined {
  return facets?.status.filter(({ value }) => !search.status || search.status.includes(value as Status)).reduce((sum, each) => sum + each.count, 0);
}

type Change = (edit: Partial<Record<keyof JobsSearch, JobsSearch[keyof JobsSearch] | undefined>>) => unknown;

function Filters({ search, facets, onChange }: { search: JobsSearch; facets: JobFacets | undefined; onChange: Change }) {
  const [text, setText] = useState(search.q ?? '');
  const [known, setKnown] = useState(search.q);
  const input = useRef<HTMLInputElement>(null);
  if (known !== search.q) {
    setKnown(search.q);
    if ((search.q ?? '') !== text.trim()) setText(search.q ?? '');
  }
  const typing = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(typing.current), [search.q]); // a change of the URL wins over what was typed before
  const type = (value: string) => {
    setText(value);
    clearTimeout(typing.current);
    typing.current = setTimeout(() => void onChange({ q: value.trim() || undefined }), TYPING_MS);
  };
  useShortcuts([{ keys: '/', label: 'Search the jobs', run: () => input.current?.focus() }]);

  const select = (name: 'model' | 'agent' | 'repo' | 'code', label: string, values: { value: string; count: number }[] | undefined) => (
    <select aria-label={label} value={search[name] ?? ''} className={search[name] ? styles.set : undefined} onChange={(event) => void onChange({ [name]: event.target.value || undefined })}>
      <option value="">{label}</option>
      {search[name] && !values?.some((each) => each.value === search[name]) && <option value={search[name]}>{search[name]}</option>}
      {values?.map((each) => <option key={each.value} value={each.value}>{each.value} ({count(each.count)})</option>)}
    </select>
  );
  return (
    <div role="search" className={styles.filters}>
      <div className={styles.searchField}>
        <Icon name="search" size={14} />
        <input ref={input} type="search" aria-label="Search in id, title, type and repository" placeholder="Search jobs" value={text} onChange={(event) => type(event.target.value)}
          onKeyDown={(event) => { if (event.key === 'Escape') event.currentTarget.blur(); }} />
      </div>
      <div className={styles.selects}>
        {select('model', 'Model', facets?.model)}
        {select('agent', 'Agent', facets?.agentRole)}
        {select('repo', 'Repository', facets?.repo)}
        {select('code', 'Failure', facets?.failedCode)}
        <select aria-label="Time" value={search.window ?? ''} className={search.window ? styles.set : undefined} onChange={(event) => void onChange({ window: event.target.value || undefined })}>
          <option value="">Any time</option>
          {Object.keys(WINDOWS).map((window) => <option key={window} value={window}>Last {window}</option>)}
        </select>
        <select aria-label="Order" value={search.sort ?? 'newest'} className={search.sort ? styles.set : undefined} onChange={(event) => void onChange({ sort: event.target.value === 'oldest' ? 'oldest' : undefined })}>
          <option value="newest">Newest first</option>
          <option value="oldest">Oldest first</option>
        </select>
      </div>
    </div>
  );
}

function Counts({ search, facets, onChange }: { search: JobsSearch; facets: JobFacets | undefined; onChange: (status: Status[] | undefined) => unknown }) {
  const chosen = search.status ?? [];
  const toggle = (status: Status) => {
    const next = chosen.includes(status) ? chosen.filter((each) => each !== status) : [...chosen, status];
    void onChange(next.length > 0 ? next : undefined);
  };
  return (
    <div role="group" aria-label="Status" className={styles.counts}>
      {STATUSES.map((status) => (
        <button key={status} type="button" aria-pressed={chosen.includes(status)} className={styles.count} onClick={() => toggle(status)}>
          <StatusIcon status={status} />
          {STATUS_WORDS[status]}
          <span>{facets ? count(facets.status.find((each) => each.value === status)?.count ?? 0) : ''}</span>
        </button>
      ))}
      {hasFilters(search) && (
        <Link to="/jobs" search={search.sort ? { sort: search.sort } : {}} className={buttonClass('quiet')}>
          <Icon name="close" size={14} /> Clear
        </Link>
      )}
    </div>
  );
}

interface JobTableProps {
  search: JobsSearch;
  filter: JobFilter;
  total: number | undefined;
  onPreview: (id: string | undefined) => void;
}

function JobTable({ search, filter, total, onPreview }: JobTableProps) {
  const navigate = useNavigate();
  const isNarrow = useMedia(NARROW);
  const preview = useMedia(WIDE) ? search.job : undefined;
  const rowHeight = isNarrow ? ROW_HEIGHT.narrow : ROW_HEIGHT.wide;
  const shown = useRef<() => readonly JobItem[]>(() => []);
  const atStart = useRef<() => boolean>(() => true);
  const jobs = useJobs(filter, search.sort ?? 'newest', atStart, shown);
  const { ref: scroller, ...rows } = useVirtualRows(jobs.jobs.length, rowHeight, 10, isNarrow ? 0 : HEADER_HEIGHT);
  const [focused, setFocused] = useState(search.job);
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const visible = jobs.jobs.slice(rows.first, rows.end);
  useEffect(() => {
    shown.current = () => visible;
    atStart.current = rows.isAtStart;
    if (rows.end > jobs.jobs.length - 30) jobs.loadMore();
  });

  const index = jobs.jobs.findIndex((job) => job.id === focused);
  const focus = (target: number) => {
    const job = jobs.jobs[Math.min(Math.max(0, target), jobs.jobs.length - 1)];
    if (!job) return;
    setFocused(job.id);
    if (preview) onPreview(job.id);
    rows.scrollTo(jobs.jobs.indexOf(job));
  };
  const latest = useRef({ list: jobs.jobs, index });
  useEffect(() => {
    latest.current = { list: jobs.jobs, index };
  });
  const select = useCallback((id: string, extend = false) => {
    const { list, index: from } = latest.current;
    const position = list.findIndex((job) => job.id === id);
    const range = extend && from >= 0 ? list.slice(Math.min(from, position), Math.max(from, position) + 1).map((job) => job.id) : [id];
    setSelected((before) => {
      const next = new Set(before);
      const isAdding = extend || !before.has(id);
      for (const each of range) {
        if (isAdding) next.add(each);
        else next.delete(each);
      }
      return next;
    });
    setFocused(id);
  }, [setSelected, setFocused]);
  useShortcuts([
    { keys: 'j', label: 'Next job', run: () => focus(index + 1) },
    { keys: 'k', label: 'Previous job', run: () => focus(index - 1) },
    { keys: 'ArrowDown', label: 'Next job', run: () => focus(index + 1), isHidden: true },
    { keys: 'ArrowUp', label: 'Previous job', run: () => focus(index - 1), isHidden: true },
    { keys: 'Home', label: 'First job', run: () => focus(0) },
    { keys: 'End', label: 'Last loaded job', run: () => focus(jobs.jobs.length - 1) },
    { keys: 'x', label: 'Select the job', run: () => { if (focused) select(focused); } },
    { keys: 'Enter', label: 'Open the job', run: () => { if (focused) void navigate({ to: '/jobs/$id/activity', params: { id: focused } }); } },
    { keys: 'o', label: 'Show the job beside the list', run: () => onPreview(focused === preview ? undefined : focused) },
    { keys: 'Escape', label: 'Close the preview, clear the selection', run: () => { if (preview) onPreview(undefined); else setSelected(new Set()); } },
    { keys: 'n', label: 'Show newer jobs', run: () => { jobs.showNewer(); rows.scrollTo(0, 'start'); } },
  ]);

  const isEmpty = jobs.next !== undefined && jobs.jobs.length === 0;
  const chosen = jobs.jobs.filter((job) => selected.has(job.id));
  return (
    <>
      {jobs.error !== undefined && <div className={styles.message}><Failure error={jobs.error} onRetry={jobs.retry} /></div>}
      {jobs.newer.length > 0 && (
        <button type="button" className={styles.newer} onClick={() => { jobs.showNewer(); rows.scrollTo(0, 'start'); }}>
          <Icon name="arrowUp" size={14} /> {count(jobs.newer.length)} newer
        </button>
      )}
      <div className={styles.columns}>
        <div ref={scroller} className={styles.scroller} tabIndex={0} role="region" aria-label="Jobs" data-beside={preview ? true : undefined}>
          {isEmpty ? <NoJobs search={search} /> : (
            <table className={styles.table} aria-rowcount={(total ?? jobs.jobs.length) + 1} aria-label="Jobs">
              <thead>
                <tr aria-rowindex={1}>
                  <th scope="col" className={styles.check}><span className="visually-hidden">Selected</span></th>
                  <th scope="col" className={styles.statusColumn}>Status</th>
                  <th scope="col">Job</th>
                  <th scope="col" className={styles.agentColumn}>Agent</th>
                  <th scope="col" className={styles.repoColumn}>Repository</th>
                  <th scope="col" className={styles.modelColumn}>Model</th>
                  <th scope="col" className={styles.numberColumn}>Run time</th>
                  <th scope="col" className={styles.numberColumn}>Cost</th>
                  <th scope="col" className={styles.ageColumn}>Created</th>
                </tr>
              </thead>
              <tbody>
                {rows.first > 0 && <tr aria-hidden="true" style={{ height: rows.offset }}><td colSpan={9} /></tr>}
                {visible.map((job, position) => (
                  <JobRow key={job.id} job={job} rowIndex={rows.first + position + 2} isFocused={job.id === focused} isSelected={selected.has(job.id)} onSelect={select} />
                ))}
                {rows.end < jobs.jobs.length && <tr aria-hidden="true" style={{ height: (jobs.jobs.length - rows.end) * rowHeight }}><td colSpan={9} /></tr>}
              </tbody>
            </table>
          )}
          {jobs.isLoading && <div className={styles.loading}><Loading rows={jobs.jobs.length === 0 ? 12 : 2} height={rowHeight} /></div>}
        </div>
        {preview && <Preview key={preview} id={preview} onClose={() => onPreview(undefined)} />}
      </div>
      {selected.size > 0 && <Actions jobs={chosen} onDone={(changed) => { jobs.store(changed); setSelected(new Set()); }} onClear={() => setSelected(new Set())} />}
    </>
  );
}

function NoJobs({ search }: { search: JobsSearch }) {
  return hasFilters(search) ? (
    <Empty title="No job matches" action={<Link to="/jobs" className={buttonClass()}>Clear the filters</Link>}>
      There are jobs with other values only, or none at all.
    </Empty>
  ) : (
    <Empty title="No jobs" action={<Link to="/jobs/new" className={buttonClass('primary')}>New job</Link>}>
      A job runs an agent with a prompt. Submit one here, with `labrats submit`, or let a webhook start one.
    </Empty>
  );
}

type Action = 'cancel' | 'retry';

function Actions({ jobs, onDone, onClear }: { jobs: readonly JobItem[]; onDone: (changed: readonly JobItem[]) => void; onClear: () => void }) {
  const queries = useQueryClient();
  const [asked, setAsked] = useState<Action>();
  const [isBusy, setBusy] = useState(false);
  const affected = { cancel: jobs.filter((job) => !hasEnded(job.status)), retry: jobs.filter((job) => job.status === 'failed') };
  const run = async (action: Action) => {
    setBusy(true);
    const changed: JobItem[] = [];
    const failures = await forEachJob(affected[action].map((job) => job.id), async (id) => {
      changed.push(await (action === 'cancel' ? cancelJob(id) : retryJob(id)));
    });
    if (changed.length > 0) toast(`${counted(changed.length, 'job')} ${action === 'cancel' ? 'cancelled' : 'queued again'}.`);
    for (const [id, error] of [...failures].slice(0, 3)) toast(`${id}: ${error.message}`, 'error');
    await queries.invalidateQueries({ queryKey: ['facets'] });
    setBusy(false);
    setAsked(undefined);
    onDone(changed);
  };
  return (
    <div className={styles.actions} role="toolbar" aria-label="Selected jobs">
      <span>{count(jobs.length)} selected</span>
      {affected.retry.length > 0 && <Button onClick={() => setAsked('retry')}>Retry {count(affected.retry.length)} failed</Button>}
      {affected.cancel.length > 0 && <Button kind="danger" onClick={() => setAsked('cancel')}>Cancel {count(affected.cancel.length)}</Button>}
      <Button kind="quiet" onClick={onClear}>Clear</Button>
      {asked && (
        <Dialog title={asked === 'cancel' ? `Cancel ${counted(affected.cancel.length, 'job')}?` : `Retry ${counted(affected.retry.length, 'job')}?`} onClose={() => setAsked(undefined)}
          footer={<>
            <Button onClick={() => setAsked(undefined)}>Back</Button>
            <Button kind={asked === 'cancel' ? 'danger' : 'primary'} isBusy={isBusy} onClick={() => void run(asked)}>
              {asked === 'cancel' ? 'Cancel' : 'Retry'} {counted(affected[asked].length, 'job')}
            </Button>
          </>}>
          <p>{asked === 'cancel' ? 'Running agents are stopped with all their processes. Their changes so far stay available.' : 'Failed jobs are queued again. Claude Code and Codex resume their session if its workspace still exists.'}</p>
        </Dialog>
      )}
    </div>
  );
}
