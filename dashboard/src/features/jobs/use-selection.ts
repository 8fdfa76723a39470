/** The jobs of a list that the user has selected. */

import { useCallback, useEffect, useRef, useState } from 'react';

import type { JobItem } from '../../api/jobs';

export interface Selection {
  ids: ReadonlySet<string>;
  /** The selected jobs that are in the list. */
  jobs: readonly JobItem[];
  /** Select a job or deselect it. extend: select all from the latest choice up to it. */
  select: (id: string, extend?: boolean) => void;
  selectAll: () => void;
  clear: () => void;
}

const NONE: ReadonlySet<string> = new Set();

/** onSelect: called with the job that the user has chosen. */
export function useSelection(list: readonly JobItem[], onSelect: (id: string) => void): Selection {
  const [ids, setIds] = useState(NONE);
  const anchor = useRef<string>(undefined);
  const latest = useRef({ list, onSelect });
  useEffect(() => {
    latest.current = { list, onSelect };
  });
  const select = useCallback((id: string, extend = false) => {
    const range = extend ? between(latest.current.list, anchor.current ?? id, id) : [id];
    setIds((before) =>
      extend || !before.has(id) ? new Set([...before, ...range]) : new Set([...before].filter((each) => each !== id)),
    );
    anchor.current = id;
    latest.current.onSelect(id);
  }, []);
  return {
    ids,
    jobs: ids.size > 0 ? list.filter((job) => ids.has(job.id)) : [],
    select,
    selectAll: () => setIds(new Set(list.map((job) => job.id))),
    clear: () => setIds(NONE),
  };
}

/** The ids of the jobs between two of a list, both included. */
export function between(list: readonly { id: string }[], from: string, to: string): string[] {
  const [a, b] = [from, to].map((id) => list.findIndex((job) => job.id === id)) as [number, number];
  if (a < 0 || b < 0) return [to];
  return list.slice(Math.min(a, b), Math.max(a, b) + 1).map((job) => job.id);
}
