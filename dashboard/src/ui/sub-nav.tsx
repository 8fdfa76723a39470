import type { ReactNode } from 'react';

import styles from './sub-nav.module.css';

/** Links to the parts of a page, as tabs. children: the links. */
export function SubNav({ label, children }: { label: string; children: ReactNode }) {
  return (
    <nav aria-label={label} className={styles.tabs}>
      {children}
    </nav>
  );
}
