import type { ReactNode } from 'react';

import { Icon } from './icons';
import styles from './notice.module.css';

/** Something that needs attention but is no error of a request. */
export function Notice({
  children,
  action,
  kind = 'warning',
}: {
  children: ReactNode;
  action?: ReactNode;
  kind?: 'warning' | 'plain';
}) {
  return (
    <div className={`${styles.notice} ${styles[kind]}`}>
      <Icon name={kind === 'warning' ? 'warning' : 'clock'} />
      <div>{children}</div>
      {action}
    </div>
  );
}
