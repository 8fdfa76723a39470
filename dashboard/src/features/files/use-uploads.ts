import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';

import { uploadFile, uploadsQuery, type UploadKind } from '../../api/uploads';
import { describe } from '../../ui/states';

export interface Sending {
  id: number;
  name: string;
  /** The share that is sent, from 0 to 1. */
  share: number;
  /** Undefined while it is being sent. */
  error: string | undefined;
}

const PARALLEL = 2;
let lastId = 0;

/** Uploads of this page, a few at a time. Leaving the page cancels them. */
export function useUploads(kind: UploadKind) {
  const queries = useQueryClient();
  const [sendings, setSendings] = useState<readonly Sending[]>([]);
  const waiting = useRef<(() => Promise<void>)[]>([]);
  const active = useRef(0);
  const stops = useRef(new Map<number, AbortController>());
  useEffect(() => {
    const all = stops.current;
    return () => {
      for (const stop of all.values()) stop.abort();
    };
  }, []);

  const change = (id: number, part: Partial<Sending>) =>
    setSendings((before) => before.map((each) => (each.id === id ? { ...each, ...part } : each)));
  const dismiss = (id: number) => setSendings((before) => before.filter((each) => each.id !== id));
  const work = async () => {
    if (active.current >= PARALLEL) return;
    active.current++;
    for (let next = waiting.current.shift(); next; next = waiting.current.shift()) await next();
    active.current--;
  };
  const send = (files: readonly File[]) => {
    for (const file of files) {
      const [id, stop] = [++lastId, new AbortController()];
      stops.current.set(id, stop);
      setSendings((before) => [...before, { id, name: file.name, share: 0, error: undefined }]);
      waiting.current.push(async () => {
        try {
          if (!stop.signal.aborted) await uploadFile(kind, file, (share) => change(id, { share }), stop.signal);
          dismiss(id);
        } catch (error) {
          if (stop.signal.aborted) dismiss(id);
          else change(id, { error: describe(error).message });
        }
        stops.current.delete(id);
        await queries.invalidateQueries({ queryKey: uploadsQuery(kind).queryKey });
      });
      void work();
    }
  };
  const cancel = (id: number) => stops.current.get(id)?.abort();
  return { sendings, send, cancel, dismiss };
}
