import ReactMarkdown, { type Components } from 'react-markdown';

import { ExternalLink } from './external-link';
import { markdownTables } from './markdown-tables';
import { visibleText } from './markdown-text';
import styles from './markdown.module.css';

const COMPONENTS: Components = {
  a: ({ href, children }) => <ExternalLink url={href}>{children}</ExternalLink>,
  table: ({ children }) => (
    <div className={styles.table} tabIndex={0} role="group" aria-label="Table">
      <table>{children}</table>
    </div>
  ),
};

/** Markdown as elements. HTML in it stays text, and images are left out, since loading one tells its server. */
export function Markdown({ text }: { text: string }) {
  return (
    <div className={styles.markdown}>
      <ReactMarkdown
        remarkPlugins={[markdownTables]}
        rehypePlugins={[visibleText]}
        components={COMPONENTS}
        disallowedElements={['img']}
        unwrapDisallowed
      >
        {text}
      </ReactMarkdown>
    </div>
  );
}
