import { useSyncExternalStore } from 'react';

import { visible } from '../lib/ansi';
import { IconButton } from './button';
import styles from './toasts.module.css';

interface Toast {
  id: number;
  kind: 'done' | 'error';
  text: string;
}

const LIFETIME = { done: 5_000, error: 12_000 };
const LIMIT = 4;

let toasts: readonly Toast[] = [];
let lastId = 0;
const watchers = new Set<() => void>();

function set(next: readonly Toast[]): void {
  toasts = next;
  for (const watcher of watchers) watcher();
}

function dismiss(id: number): void {
  set(toasts.filter((toast) => toast.id !== id));
}

/** Show a short message. It disappears by itself. */
export function toast(text: string, kind: Toast['kind'] = 'done'): void {
  const id = ++lastId;
  set([...toasts, { id, kind, text }].slice(-LIMIT));
  setTimeout(() => dismiss(id), LIFETIME[kind]);
}

function subscribe(changed: () => void): () => void {
  watchers.add(changed);
  return () => watchers.delete(changed);
}

export function Toasts() {
  const shown = useSyncExternalStore(subscribe, () => toasts);
  return (
    <div className={styles.region} role="status" aria-live="polite">
      {shown.map(({ id, kind, text }) => (
        <div key={id} className={`${styles.toast} ${styles[kind]}`}>
          <span>{visible(text)}</span>
          <IconButton label="Dismiss" icon="close" onClick={() => dismiss(id)} />
        </div>
      ))}
    </div>
  );
}
