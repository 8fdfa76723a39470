import type { ReactNode } from 'react';

import styles from './external-link.module.css';

/**
 * A link to another site: only over https, outside this tab, and with its host, since text from an agent may deceive.
 * Else its text alone.
 */
export function ExternalLink({ url, children }: { url: string | undefined; children: ReactNode }) {
  if (!url?.startsWith('https://') || !URL.canParse(url)) return <>{children}</>;
  return (
    <a href={url} rel="noopener noreferrer" target="_blank">
      {children} <bdi className={styles.host}>({new URL(url).host})</bdi>
    </a>
  );
}
