import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useMemo, useState } from 'react';

import { facetsQuery, type JobFacets, type JobFilter, type Status } from '../../api/jobs';
import { endOfMinute } from '../../lib/times';
import { rememberJobs } from '../../ui/last-jobs';
import { useTitle } from '../../ui/page';
import { Failure } from '../../ui/states';
import { BulkButton, BulkDialog, BulkStatus } from './bulk-actions';
import { Counts, Filters } from './filters';
import { JobTable } from './job-table';
import styles from './jobs-page.module.css';
import { leftList, useIsWayBack } from './left-list';
import { filterOf, isShortQueue, listKey, type JobsSearch } from './search';

export function JobsPage() {
  const search = useSearch({ from: '/app/jobs' });
  const navigate = useNavigate({ from: '/jobs' });
  const list = listKey(search);
  const queries = useQueryClient();
  const isWayBack = useIsWayBack();
  const [left, setLeft] = useState(() => (isWayBack() ? leftList(queries) : undefined));
  if (left && left.key !== list) setLeft(undefined); // also once another filter is set
  const [opened, setOpened] = useState(() => ({ list, at: left?.key === list ? left.openedAt : endOfMinute() }));
  if (opened.list !== list) setOpened({ list, at: endOfMinute() }); // "Last 1h" ends when it is chosen
  const openedAt = opened.at;
  const key = JSON.stringify(filterOf(search, openedAt));
  const filter = useMemo(() => JSON.parse(key) as JobFilter, [key]); // the same object until a filter changes
  const { data: facets, error, refetch } = useQuery(facetsQuery(filter));
  const [isActing, setActing] = useState(false);
  const change = (edit: Partial<Record<keyof JobsSearch, JobsSearch[keyof JobsSearch] | undefined>>) =>
    navigate({ search: (before: JobsSearch) => ({ ...before, ...edit }) as JobsSearch, replace: true });
  const matching = total(search, facets);
  const isQueue = isShortQueue(search, matching);
  useTitle('Jobs');
  useEffect(() => rememberJobs(search), [search]);

  return (
    <div className={styles.page}>
      <div className={styles.head}>
        <h1>Jobs</h1>
        <Filters search={search} facets={facets} isQueue={isQueue} onChange={change} />
        <Counts search={search} facets={facets} onChange={(status) => change({ status })}>
          {search.bulk ? (
            <BulkStatus key={search.bulk} id={search.bulk} onEnd={() => void change({ bulk: undefined })} />
          ) : (
            <BulkButton filter={filter} facets={facets} onClick={() => setActing(true)} />
          )}
        </Counts>
      </div>
      {error && (
        <div className={styles.message}>
          <Failure error={error} onRetry={() => void refetch()} />
        </div>
      )}
      <JobTable
        key={`${search.sort} ${key}`}
        search={search}
        filter={filter}
        openedAt={openedAt}
        left={left?.key === list ? left : undefined}
        total={matching}
        isQueue={isQueue}
        onPreview={(job) => void change({ job })}
        onAll={() => setActing(true)}
      />
      {isActing && (
        <BulkDialog
          filter={filter}
          onClose={() => setActing(false)}
          onRun={(bulk) => {
            setActing(false);
            void change({ bulk });
          }}
        />
      )}
    </div>
  );
}

function total(search: JobsSearch, facets: JobFacets | undefined): number | undefined {
  return facets?.status
    .filter(({ value }) => !search.status || search.status.includes(value as Status))
    .reduce((sum, each) => sum + each.count, 0);
}
