/** The states of a page other than its content: loading, empty, failed. */

import { useEffect, useState, type ReactNode } from 'react';

import { ApiError, isFinal } from '../api/client';
import { visible } from '../lib/ansi';
import { Button } from './button';
import { Icon } from './icons';
import styles from './states.module.css';

/** Show placeholders of the final size, but only if loading takes a while. */
export function Loading({ rows = 6, height = 20 }: { rows?: number; height?: number }) {
  const [isSlow, setSlow] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setSlow(true), 150);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div role="status" aria-label="Loading" className={styles.loading} style={{ minHeight: rows * height }}>
      {isSlow &&
        Array.from({ length: rows }, (_, row) => (
          <div key={row} className={styles.row} style={{ height }}>
            <div className={styles.bar} style={{ width: `${30 + ((row * 37) % 50)}%` }} />
          </div>
        ))}
    </div>
  );
}

/** Nothing to show: why, and what to do. */
export function Empty({ title, children, action }: { title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className={styles.empty}>
      <h2>{title}</h2>
      {children && <p>{children}</p>}
      {action}
    </div>
  );
}

/** A request that failed: the API's sentence and code, and a way to try again. */
export function Failure({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const { message, code } = describe(error);
  return (
    <div className={styles.failure} role="alert">
      <Icon name="warning" />
      <div>
        <p>{message}</p>
        {code && <code>{code}</code>}
      </div>
      {onRetry && !isFinal(error) && <Button onClick={onRetry}>Try again</Button>}
    </div>
  );
}

export function describe(error: unknown): { message: string; code: string } {
  if (error instanceof ApiError) return { message: sentence(visible(error.message)), code: error.code };
  return { message: error instanceof Error ? error.message : String(error), code: '' };
}

/** Messages of the API begin with a small letter. */
function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
