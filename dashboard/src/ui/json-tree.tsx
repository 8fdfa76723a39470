import { useState, type ReactNode } from 'react';

import { visible, visibleLines } from '../lib/ansi';
import { count } from '../lib/format';
import { Button } from './button';
import styles from './json-tree.module.css';

const CHUNK = 100;
const OPEN_DEPTH = 2;

/** A JSON value as a tree that opens level by level. */
export function JsonTree({ value, name, depth = 0 }: { value: unknown; name?: string; depth?: number }) {
  const label = name === undefined ? null : <span className={styles.name}>{visible(name)}: </span>;
  if (typeof value !== 'object' || value === null)
    return (
      <div className={styles.leaf}>
        {label}
        <Leaf value={value} />
      </div>
    );
  return <Branch label={label} value={value} depth={depth} />;
}

function Branch({ label, value, depth }: { label: ReactNode; value: object; depth: number }) {
  const [isOpen, setOpen] = useState(depth < OPEN_DEPTH);
  const [limit, setLimit] = useState(CHUNK);
  const entries: [string, unknown][] = Object.entries(value);
  const size = Array.isArray(value) ? `[${count(entries.length)}]` : `{${count(entries.length)}}`;
  return (
    <details
      className={styles.branch}
      open={isOpen}
      onToggle={(event) => {
        if (event.target === event.currentTarget) setOpen(event.currentTarget.open);
      }}
    >
      <summary>
        {label}
        <span className={styles.size}>{size}</span>
      </summary>
      {isOpen &&
        entries.slice(0, limit).map(([key, each]) => <JsonTree key={key} name={key} value={each} depth={depth + 1} />)}
      {isOpen && entries.length > limit && (
        <Button kind="quiet" onClick={() => setLimit(limit + CHUNK)}>
          Show more of {count(entries.length)}
        </Button>
      )}
    </details>
  );
}

function Leaf({ value }: { value: unknown }) {
  if (typeof value === 'string') return <span className={styles.string}>“{visibleLines(value)}”</span>;
  return <span className={styles.other}>{String(value)}</span>;
}
