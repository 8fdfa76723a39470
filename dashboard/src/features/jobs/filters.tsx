import { Link } from '@tanstack/react-router';
import { useEffect, useEffectEvent, useRef, useState, type ReactNode } from 'react';

import { STATUSES, type JobFacets, type Status } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { count } from '../../lib/format';
import { buttonClass } from '../../ui/button';
import { Icon } from '../../ui/icons';
import { useShortcuts } from '../../ui/shortcuts';
import { STATUS_WORDS, StatusIcon } from '../../ui/status';
import { TYPING_MS } from '../../ui/use-settled';
import styles from './jobs-page.module.css';
import { EXACT, hasFilters, WINDOWS, type JobsSearch } from './search';

export type Change = (edit: Partial<Record<keyof JobsSearch, JobsSearch[keyof JobsSearch] | undefined>>) => unknown;

/** Search and selects, with the values that occur. */
export function Filters({
  search,
  facets,
  isQueue,
  onChange,
}: {
  search: JobsSearch;
  facets: JobFacets | undefined;
  /** Whether the list is a queue in its own order. */
  isQueue: boolean;
  onChange: Change;
}) {
  const [text, setText] = useState(search.q ?? '');
  const [known, setKnown] = useState(search.q);
  const [sent, setSent] = useState<readonly (string | undefined)[]>([]); // by this field, and not in the URL so far
  const input = useRef<HTMLInputElement>(null);
  if (known !== search.q) {
    setKnown(search.q);
    const isOwn = sent.includes(search.q);
    setSent(isOwn ? sent.slice(sent.indexOf(search.q) + 1) : []);
    if (!isOwn) setText(search.q ?? ''); // another change of the URL wins over what was typed
  }
  const send = useEffectEvent((q: string | undefined) => {
    setSent([...sent, q]);
    void onChange({ q });
  });
  useEffect(() => {
    const q = text.trim() || undefined;
    if (q === (search.q?.trim() || undefined)) return;
    const timer = setTimeout(() => send(q), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text, search.q]);
  useShortcuts([{ keys: '/', label: 'Search the jobs', run: () => input.current?.focus() }]);

  const select = (
    name: 'model' | 'agent' | 'repo' | 'code' | 'owner',
    label: string,
    values: { value: string; count: number }[] | undefined,
  ) => (
    <select
      aria-label={label}
      value={search[name] ?? ''}
      className={search[name] ? styles.set : undefined}
      onChange={(event) => void onChange({ [name]: event.target.value || undefined })}
    >
      <option value="">{label}</option>
      {search[name] && !values?.some((each) => each.value === search[name]) && (
        <option value={search[name]}>{visible(search[name])}</option>
      )}
      {values?.map((each) => (
        <option key={each.value} value={each.value}>
          {visible(each.value)} ({count(each.count)})
        </option>
      ))}
    </select>
  );
  return (
    <div role="search" className={styles.filters}>
      <div className={styles.searchField}>
        <Icon name="search" size={14} />
        <input
          ref={input}
          type="search"
          aria-label="Search in id, title, type and repository"
          placeholder="Search jobs"
          value={text}
          onChange={(event) => setText(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === 'Escape') event.currentTarget.blur();
          }}
        />
      </div>
      <div className={styles.selects}>
        {select('model', 'Model', facets?.model)}
        {select('agent', 'Agent', facets?.agentRole)}
        {select('repo', 'Repository', facets?.repo)}
        {select('code', 'Failure', facets?.failedCode)}
        {select('owner', 'Owner', facets?.owner)}
        <TimeSelect search={search} onChange={onChange} />
        <select
          aria-label="Order"
          value={search.sort ?? 'newest'}
          className={search.sort ? styles.set : undefined}
          onChange={(event) => void onChange({ sort: event.target.value === 'oldest' ? 'oldest' : undefined })}
        >
          <option value="newest">{isQueue ? 'Next first' : 'Newest first'}</option>
          <option value="oldest">Oldest first</option>
        </select>
      </div>
    </div>
  );
}

/** The time up to now in which jobs were created, or in which they ended. */
function TimeSelect({ search, onChange }: { search: JobsSearch; onChange: Change }) {
  const value = search.window ? `window ${search.window}` : search.ended ? `ended ${search.ended}` : '';
  const choose = (choice: string) => {
    const [name, window] = choice.split(' ');
    void onChange({ window: undefined, ended: undefined, ...(name && { [name]: window }) });
  };
  return (
    <select
      aria-label="Time"
      value={value}
      className={value ? styles.set : undefined}
      onChange={(event) => choose(event.target.value)}
    >
      <option value="">Any time</option>
      {Object.keys(WINDOWS).map((window) => (
        <option key={window} value={`window ${window}`}>
          Last {window}
        </option>
      ))}
      {Object.keys(WINDOWS).map((window) => (
        <option key={window} value={`ended ${window}`}>
          Ended in {window}
        </option>
      ))}
    </select>
  );
}

const EXACT_WORDS: Record<(typeof EXACT)[number], string> = {
  type: 'Type',
  source: 'Source',
  provider: 'Provider',
  chainId: 'Chain',
  from: 'Created from',
  to: 'Created before',
  endedFrom: 'Ended from',
  endedTo: 'Ended before',
};

/** Filters of the URL that have no field. A click removes one. */
function ExactFilters({ search }: { search: JobsSearch }) {
  return EXACT.map((name) => {
    const value = search[name];
    return (
      value && (
        <Link
          key={name}
          to="/jobs"
          search={Object.fromEntries(Object.entries(search).filter(([each]) => each !== name)) as JobsSearch}
          replace
          className={styles.exact}
          title="Remove this filter"
        >
          {EXACT_WORDS[name]}: <span>{visible(value)}</span> <Icon name="close" size={12} />
          <span className="visually-hidden">Remove this filter</span>
        </Link>
      )
    );
  });
}

/** The number of jobs in each status. A click filters by it. */
export function Counts({
  search,
  facets,
  onChange,
  children,
}: {
  search: JobsSearch;
  facets: JobFacets | undefined;
  onChange: (status: Status[] | undefined) => unknown;
  children: ReactNode;
}) {
  const chosen = search.status ?? [];
  const toggle = (status: Status) => {
    const next = chosen.includes(status) ? chosen.filter((each) => each !== status) : [...chosen, status];
    void onChange(next.length > 0 ? next : undefined);
  };
  return (
    <div className={styles.countsLine}>
      <div role="group" aria-label="Status" className={styles.counts}>
        {STATUSES.map((status) => (
          <button
            key={status}
            type="button"
            aria-pressed={chosen.includes(status)}
            className={styles.count}
            onClick={() => toggle(status)}
          >
            <StatusIcon status={status} />
            {STATUS_WORDS[status]}
            <span>{facets ? count(facets.status.find((each) => each.value === status)?.count ?? 0) : ''}</span>
          </button>
        ))}
        <ExactFilters search={search} />
        {hasFilters(search) && (
          <Link
            to="/jobs"
            search={search.sort ? { sort: search.sort } : {}}
            className={`${buttonClass('quiet')} ${styles.clear}`}
          >
            <Icon name="close" size={14} /> Clear
          </Link>
        )}
      </div>
      {children}
    </div>
  );
}
