/** Search over pages, actions, agents, models, sources, instructions and jobs, opened with Ctrl K. */

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

import { instructionsQuery } from '../api/instructions';
import { agentsQuery, fetchJobs, modelsQuery } from '../api/jobs';
import { sourcesQuery } from '../api/sources';
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
/** The most agents, models, sources and instructions each. */
const FEW = 5;

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
  const resources = useResources(typed.toLowerCase());
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
    ...resources.entries,
    ...(jobs.data?.jobs ?? []).map((job) => ({
      key: job.id,
      icon: <NamedStatusIcon status={job.status} />,
      label: visible(job.title ?? job.name),
      note: job.id,
      run: () => void navigate({ to: '/jobs/$id/activity', params: { id: job.id } }),
    })),
  ];
  const current = Math.min(chosen, entries.length - 1);

  const isStale = q !== typed || resources.isLoading || (jobs.isPlaceholderData && jobs.isFetching);
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
          placeholder="Search jobs, agents, models, pages and actions"
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

/** The agents, models, sources and instructions whose names contain a text of small letters. */
function useResources(text: string): { entries: Entry[]; isLoading: boolean } {
  const navigate = useNavigate();
  const isWanted = { enabled: text !== '', staleTime: 10_000 };
  const agents = useQuery({ ...agentsQuery, ...isWanted });
  const models = useQuery({ ...modelsQuery, ...isWanted });
  const sources = useQuery({ ...sourcesQuery, ...isWanted });
  const instructions = useQuery({ ...instructionsQuery, ...isWanted });
  const isLoading = [agents, models, sources, instructions].some((query) => query.isLoading);
  if (text === '') return { entries: [], isLoading };
  const found = <T,>(all: readonly T[] | undefined, texts: (each: T) => string[], entry: (each: T) => Entry) =>
    (all ?? [])
      .filter((each) => texts(each).join('\n').toLowerCase().includes(text))
      .slice(0, FEW)
      .map(entry);
  const entries = [
    ...found(
      agents.data?.agents,
      ({ name, triggerName }) => [name, triggerName],
      ({ id, name }) => ({
        key: `agent ${id}`,
        icon: <Icon name="agent" />,
        label: visible(name),
        note: 'agent',
        run: () => void navigate({ to: '/agents/$id/triggers', params: { id } }),
      }),
    ),
    ...found(
      models.data?.aiModels,
      ({ name, provider, model }) => [name, `${provider}/${model}`],
      ({ name, provider, model }) => ({
        key: `model ${name}`,
        icon: <Icon name="chip" />,
        label: visible(`${name}: ${provider}/${model}`),
        note: 'model',
        run: () => void navigate({ to: '/models', search: { edit: name } }),
      }),
    ),
    ...found(
      sources.data?.webhookSources,
      ({ name }) => [name],
      ({ id, name }) => ({
        key: `source ${id}`,
        icon: <Icon name="hook" />,
        label: visible(name),
        note: 'source',
        run: () => void navigate({ to: '/sources/$id', params: { id } }),
      }),
    ),
    ...found(
      instructions.data?.instructions,
      ({ name, displayName }) => [name, displayName],
      ({ id, displayName }) => ({
        key: `instruction ${id}`,
        icon: <Icon name="file" />,
        label: visible(displayName),
        note: 'instruction',
        run: () => void navigate({ to: '/instructions/$id', params: { id } }),
      }),
    ),
  ];
  return { entries, isLoading };
}
