import ReactMarkdown, { type Components } from 'react-markdown';

import { markdownTables } from './markdown-tables';
import styles from './markdown.module.css';

/** Links open only over https, outside this tab, and show their host: text from an agent may deceive. */
const COMPONENTS: Components = {
  a: ({ href, children }) => {
    const host = httpsHost(href);
    if (host === undefined) return <>{children}</>;
    return (
      <a href={href} rel="noopener noreferrer" target="_blank">
        {children} <span className={styles.host}>({host})</span>
      </a>
    );
  },
  table: ({ children }) => <div className={styles.table} tabIndex={0} role="group" aria-label="Table"><table>{children}</table></div>,
};

/** Markdown as elements. HTML in it stays text, and images are left out, since loading one tells its server. */
export function Markdown({ text }: { text: string }) {
  return (
    <div className={styles.markdown}>
      <ReactMarkdown remarkPlugins={[markdownTables]} components={COMPONENTS} disallowedElements={['img']} unwrapDisallowed>{text}</ReactMarkdown>
    </div>
  );
}

function httpsHost(href: string | undefined): string | undefined {
  if (!href?.startsWith('https://')) return undefined;
  try {
    return new URL(href).host;
  } catch {
    return undefined;
  }
}
