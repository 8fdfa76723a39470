import { Link } from '@tanstack/react-router';
import { useEffect, useRef, useState, type ReactNode } from 'react';

import { STATUSES, type JobFacets, type Status } from '../../api/jobs';
import { count } from '../../lib/format';
import { buttonClass } from '../../ui/button';
import { Icon } from '../../ui/icons';
import { useShortcuts } from '../../ui/shortcuts';
import { STATUS_WORDS, StatusIcon } from '../../ui/status';
import styles from './jobs-page.module.css';
import { hasFilters, WINDOWS, type JobsSearch } from './search';

/** The pause in typing after which a search begins. */
const TYPING_MS = 200;

export type Change = (edit: Partial<Record<keyof JobsSearch, JobsSearch[keyof JobsSearch] | undefined>>) => unknown;

/** Search and selects, with the values that occur. */
export function Filters({ search, facets, onChange }: { search: JobsSearch; facets: JobFacets | undefined; onChange: Change }) {
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

  const select = (name: 'model' | 'agent' | 'repo' | 'code' | 'owner', label: string, values: { value: string; count: number }[] | undefined) => (
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
        {(search.owner ?? (facets?.owner.length ?? 0) > 1) && select('owner', 'Owner', facets?.owner)}
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

/** The number of jobs in each status. A click filters by it. */
export function Counts({ search, facets, onChange, children }: { search: JobsSearch; facets: JobFacets | undefined; onChange: (status: Status[] | undefined) => unknown; children: ReactNode }) {
  const chosen = search.status ?? [];
  const toggle = (status: Status) => {
    const next = chosen.includes(status) ? chosen.filter((each) => each !== status) : [...chosen, status];
    void onChange(next.length > 0 ? next : undefined);
  };
  return (
    <div className={styles.countsLine}>
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
      {children}
    </div>
  );
}
