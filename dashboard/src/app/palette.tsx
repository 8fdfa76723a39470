/** Search over pages, actions and jobs, opened with Ctrl K. */

import { useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import {
  useEffect,
  useEffectEvent,
  useId,
  useLayoutEffect,
  useRef,
  useState,
  type KeyboardEvent,
  type ReactNode,
} from 'react';

import { fetchJobs } from '../api/jobs';
import { visible } from '../lib/ansi';
import { useMayChange } from '../ui/access';
import { useClickBeside } from '../ui/dialog';
import { Icon } from '../ui/icons';
import { describe } from '../ui/states';
import { NamedStatusIcon } from '../ui/status';
import { setTheme, THEMES } from '../ui/theme';
import { useSettled } from '../ui/use-settled';
import styles from './palette.module.css';
import { PAGES } from './shell';

interface Entry {
  key: string;
  icon: ReactNode;
  label: string;
  note?: string;
  run: () => void;
}

const LIMIT = 8;

export function Palette({ onClose, onHelp }: { onClose: () => void; onHelp: () => void }) {
  const navigate = useNavigate();
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState('');
  const [chosen, setChosen] = useState(0);
  const [isWaiting, setWaiting] = useState(false); // for the jobs of the text, to open the chosen entry
  const typed = text.trim();
  const q = useSettled(typed);
  const id = useId();
  const beside = useClickBeside(onClose);
  useLayoutEffect(() => {
    // as in Dialog
    const element = dialog.current;
    element?.showModal();
    return () => element?.close();
  }, []);

  const jobs = useQuery({
    queryKey: ['palette', q],
    queryFn: ({ signal }) => fetchJobs(q ? { q } : {}, '', { limit: LIMIT, signal }),
    placeholderData: (previous) => previous,
  });
  const commands: Entry[] = [
    ...PAGES.map((page) => ({
      key: page.to,
      icon: <Icon name={page.icon} />,
      label: page.label,
      run: () => void navigate({ to: page.to }),
    })),
    ...(useMayChange()
      ? [{ key: 'new', icon: <Icon name="plus" />, label: 'New job', run: () => void navigate({ to: '/jobs/new' }) }]
      : []),
    {
      key: 'pause',
      icon: <Icon name="clock" />,
      label: 'Pause, resume or stop the engine',
      run: () => void navigate({ to: '/settings/system' }),
    },
    {
      key: 'failed',
      icon: <Icon name="warning" />,
      label: 'Failed jobs',
      run: () => void navigate({ to: '/jobs', search: { status: ['failed'] } }),
    },
    ...THEMES.map((theme) => ({
      key: theme,
      icon: <Icon name="sun" />,
      label: `Theme: ${theme}`,
      run: () => setTheme(theme),
    })),
    { key: 'help', icon: <Icon name="keyboard" />, label: 'Keyboard shortcuts', run: onHelp },
  ];
  const entries: Entry[] = [
    ...commands.filter((entry) => entry.label.toLowerCase().includes(typed.toLowerCase())),
    ...(jobs.data?.jobs ?? []).map((job) => ({
      key: job.id,
      icon: <NamedStatusIcon status={job.status} />,
      label: visible(job.title ?? job.name),
      note: job.id,
      run: () => void navigate({ to: '/jobs/$id/activity', params: { id: job.id } }),
    })),
  ];
  const current = Math.min(chosen, entries.length - 1);

  const isStale = q !== typed || (jobs.isPlaceholderData && jobs.isFetching);
  const choose = (entry: Entry | undefined) => {
    if (!entry) return;
    onClose();
    entry.run();
  };
  const press = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) setChosen((current + step + entries.length) % Math.max(1, entries.length));
    else if (event.key === 'Enter') setWaiting(true);
    else return;
    event.preventDefault();
  };
  const open = useEffectEvent(() => choose(entries[current]));
  useEffect(() => {
    if (isWaiting && !isStale) open();
  }, [isWaiting, isStale]);
  useEffect(() => {
    document.getElementById(`${id}-${current}`)?.scrollIntoView({ block: 'nearest' });
  }, [id, current]);

  return (
    <dialog
      ref={dialog}
      className={styles.palette}
      aria-label="Search"
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      {...beside}
    >
      <div className={styles.field}>
        <Icon name="search" />
        <input
          value={text}
          onChange={(event) => {
            setText(event.target.value);
            setChosen(0);
            setWaiting(false);
          }}
          onKeyDown={press}
          placeholder="Search jobs, pages and actions"
          role="combobox"
          aria-expanded
          aria-controls={`${id}-list`}
          aria-activedescendant={`${id}-${current}`}
          aria-label="Search"
          autoComplete="off"
          spellCheck={false}
        />
      </div>
      <div id={`${id}-list`} role="listbox" aria-label="Results" className={styles.list}>
        {entries.map((entry, index) => (
          <div
            key={entry.key}
            id={`${id}-${index}`}
            role="option"
            aria-selected={index === current}
            className={styles.entry}
            onPointerMove={() => setChosen(index)}
            onClick={() => choose(entry)}
          >
            {entry.icon}
            <span className={styles.label}>{entry.label}</span>
            {entry.note && <code>{entry.note}</code>}
          </div>
        ))}
        {jobs.isLoadingError && (
          <p role="alert" className={styles.none}>
            {describe(jobs.error).message}
          </p>
        )}
        {entries.length === 0 && !jobs.isFetching && !jobs.isLoadingError && (
          <p className={styles.none}>Nothing matches “{q}”.</p>
        )}
      </div>
    </dialog>
  );
}
