import { useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate } from '@tanstack/react-router';
import { useEffect, useEffectEvent, useMemo, useRef, useState } from 'react';

import type { JobFilter } from '../../api/jobs';
import { count } from '../../lib/format';
import { Changing } from '../../ui/access';
import { buttonClass } from '../../ui/button';
import { Icon } from '../../ui/icons';
import { useShortcuts } from '../../ui/shortcuts';
import { Empty, Failure, Loading } from '../../ui/states';
import { NARROW, SHORT, useMedia } from '../../ui/use-media';
import { useVirtualRows } from '../../ui/use-virtual-rows';
import { inQueueOrder } from '../../ui/waiting';
import { JobRow } from './job-row';
import styles from './jobs-page.module.css';
import { forgetLeftList, storeLeftList, type LeftList } from './left-list';
import { Preview } from './preview';
import { MOST_NEWER } from './rows';
import { hasFilters, listKey, type JobsSearch } from './search';
import { SelectAll, SelectionBar } from './selection-bar';
import { useJobs, type Reader } from './use-jobs';
import { usePlaces } from './use-places';
import { useSelection } from './use-selection';

const HEADER_HEIGHT = 33;
const ROW_HEIGHT = { wide: 44, narrow: 68, narrowAndShort: 34 };

interface JobTableProps {
  search: JobsSearch;
  filter: JobFilter;
  openedAt: number;
  /** The list as it was left, to show again. */
  left: LeftList | undefined;
  total: number | undefined;
  /** Whether the list is a queue in its own order. */
  isQueue: boolean;
  onPreview: (id: string | undefined) => void;
  /** Act on all jobs that match. */
  onAll: () => void;
}

export function JobTable({ search, filter, openedAt, left, total, isQueue, onPreview, onAll }: JobTableProps) {
  const navigate = useNavigate();
  const isNarrow = useMedia(NARROW);
  const isShort = useMedia(SHORT);
  const preview = search.job;
  const order = search.sort ?? 'newest';
  const rowHeight = ROW_HEIGHT[isNarrow ? (isShort ? 'narrowAndShort' : 'narrow') : 'wide'];
  const reader = useRef<Reader>({ isAtTop: () => true, visible: () => [], end: () => 0, hasSelection: () => false });
  const jobs = useJobs(filter, order, reader, left);
  const { ref: scroller, ...rows } = useVirtualRows(jobs.jobs.length, rowHeight, {
    extra: 5,
    headerHeight: isNarrow ? 0 : HEADER_HEIGHT,
    start: left?.position ?? 0,
  });
  const [focused, setFocused] = useState(search.job ?? left?.focused);
  const places = usePlaces(jobs, isQueue ? 0 : rows.first, isQueue ? jobs.jobs.length : rows.end);
  const list = useMemo(
    () => (isQueue && jobs.next === null ? inQueueOrder(jobs.jobs, places) : jobs.jobs),
    [isQueue, jobs.next, jobs.jobs, places],
  );
  const visible = list.slice(rows.first, rows.end);
  const selection = useSelection(list, setFocused);
  useEffect(() => {
    reader.current = {
      isAtTop: rows.isAtStart,
      visible: () => visible,
      end: () => Math.min(rows.end, jobs.jobs.length),
      hasSelection: () => selection.jobs.length > 0,
    };
    if (isQueue || rows.end > jobs.jobs.length - 30) jobs.loadMore();
  });

  const queries = useQueryClient();
  const leave = useEffectEvent(() => {
    if (jobs.next === undefined) return;
    const { jobs: shown, newer, next } = jobs;
    storeLeftList(
      queries,
      {
        key: listKey(search),
        openedAt,
        rows: { jobs: shown, newer, next },
        position: rows.position,
        focused,
        isStale: false,
      },
      filter,
      order,
    );
  });
  useEffect(() => {
    forgetLeftList(queries);
    return () => leave();
  }, [queries]);

  const isMoved = useRef(false); // by a key: the link of the job takes the focus once its row is drawn
  useEffect(() => {
    const link = isMoved.current && scroller.current?.querySelector<HTMLElement>('[data-focused] td a');
    if (!link) return;
    isMoved.current = false;
    link.focus({ preventScroll: true });
  });

  const index = list.findIndex((job) => job.id === focused);
  const focus = (target: number) => {
    const job = list[Math.min(Math.max(0, target), list.length - 1)];
    if (!job) return;
    setFocused(job.id);
    isMoved.current = true;
    if (preview) onPreview(job.id);
    rows.scrollTo(list.indexOf(job));
  };
  useShortcuts([
    { keys: 'j', label: 'Next job', run: () => focus(index + 1) },
    { keys: 'k', label: 'Previous job', run: () => focus(index - 1) },
    { keys: 'ArrowDown', label: 'Next job', run: () => focus(index + 1), isHidden: true },
    { keys: 'ArrowUp', label: 'Previous job', run: () => focus(index - 1), isHidden: true },
    { keys: 'Home', label: 'First job', run: () => focus(0) },
    { keys: 'End', label: 'Last loaded job', run: () => focus(jobs.jobs.length - 1) },
    {
      keys: 'x',
      label: 'Select the job',
      isChanging: true,
      run: () => {
        if (focused) selection.select(focused);
      },
    },
    {
      keys: 'X',
      label: 'Select up to the job',
      isChanging: true,
      run: () => {
        if (focused) selection.select(focused, true);
      },
    },
    { keys: 'a', label: 'Select all loaded jobs', isChanging: true, run: selection.selectAll },
    {
      keys: 'Enter',
      label: 'Open the job',
      run: () => {
        if (focused) void navigate({ to: '/jobs/$id/activity', params: { id: focused } });
      },
    },
    {
      keys: 'o',
      label: 'Show the job beside the list',
      run: () => onPreview(focused === preview ? undefined : focused),
    },
    {
      keys: 'Escape',
      label: 'Close the preview, clear the selection',
      run: () => {
        if (preview) onPreview(undefined);
        else selection.clear();
      },
    },
    {
      keys: 'n',
      label: 'Show newer jobs',
      run: () => {
        jobs.showNewer();
        rows.scrollTo(0, 'start');
      },
    },
  ]);

  const isEmpty = jobs.next !== undefined && jobs.jobs.length === 0;
  return (
    <>
      {jobs.error !== undefined && (
        <div className={styles.message}>
          <Failure error={jobs.error} onRetry={jobs.retry} />
        </div>
      )}
      {jobs.newer.length > 0 && (
        <button
          type="button"
          className={styles.newer}
          onClick={() => {
            jobs.showNewer();
            rows.scrollTo(0, 'start');
          }}
        >
          <Icon name="arrowUp" size={14} /> {count(jobs.newer.length)}
          {jobs.newer.length === MOST_NEWER && '+'} newer
        </button>
      )}
      <div className={styles.columns}>
        <div
          ref={scroller}
          className={styles.scroller}
          tabIndex={0}
          data-shortcuts
          role="region"
          aria-label="Jobs"
          data-beside={preview ? true : undefined}
        >
          {isEmpty ? (
            <NoJobs search={search} />
          ) : (
            <table className={styles.table} aria-rowcount={(total ?? jobs.jobs.length) + 1} aria-label="Jobs">
              <thead>
                <tr aria-rowindex={1}>
                  <th scope="col" className={styles.check}>
                    <SelectAll selection={selection} loaded={jobs.jobs.length} />
                  </th>
                  <th scope="col" className={styles.statusColumn}>
                    Status
                  </th>
                  <th scope="col">Job</th>
                  <th scope="col" className={styles.agentColumn}>
                    Agent
                  </th>
                  <th scope="col" className={styles.repoColumn}>
                    Repository
                  </th>
                  <th scope="col" className={styles.modelColumn}>
                    Model
                  </th>
                  <th scope="col" className={styles.numberColumn}>
                    Run time
                  </th>
                  <th scope="col" className={`${styles.numberColumn} ${styles.costColumn}`}>
                    Cost
                  </th>
                  <th scope="col" className={styles.ageColumn}>
                    Created
                  </th>
                </tr>
              </thead>
              <tbody>
                {rows.first > 0 && (
                  <tr aria-hidden="true" style={{ height: rows.offset }}>
                    <td />
                  </tr>
                )}
                {visible.map((job, position) => (
                  <JobRow
                    key={job.id}
                    job={job}
                    place={places[job.id]}
                    rowIndex={rows.first + position + 2}
                    isFocused={job.id === focused}
                    isSelected={selection.ids.has(job.id)}
                    onSelect={selection.select}
                  />
                ))}
                {rows.end < jobs.jobs.length && (
                  <tr aria-hidden="true" style={{ height: (jobs.jobs.length - rows.end) * rowHeight }}>
                    <td />
                  </tr>
                )}
              </tbody>
            </table>
          )}
          {jobs.isLoading && (
            <div className={styles.loading}>
              <Loading rows={jobs.jobs.length === 0 ? 12 : 2} height={rowHeight} />
            </div>
          )}
        </div>
        {preview && <Preview key={preview} id={preview} onClose={() => onPreview(undefined)} />}
      </div>
      {selection.jobs.length > 0 && (
        <SelectionBar
          jobs={selection.jobs}
          total={total}
          onAll={onAll}
          onClear={selection.clear}
          onDone={(changed) => {
            jobs.store(changed);
            selection.clear();
          }}
        />
      )}
    </>
  );
}

function NoJobs({ search }: { search: JobsSearch }) {
  return hasFilters(search) ? (
    <Empty
      title="No job matches"
      action={
        <Link to="/jobs" className={buttonClass()}>
          Clear the filters
        </Link>
      }
    >
      There are jobs with other values only, or none at all.
    </Empty>
  ) : (
    <Empty
      title="No jobs"
      action={
        <Changing>
          <Link to="/jobs/new" className={buttonClass('primary')}>
            New job
          </Link>
        </Changing>
      }
    >
      A job runs an agent with a prompt. Submit one here, with <code>labrats submit</code>, or let a webhook start one.
    </Empty>
  );
}
