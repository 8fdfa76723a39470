import { Suspense, useRef } from 'react';

import { useIsNear } from '../../ui/use-is-near';
import styles from './agent-text.module.css';
import { isMarkdown, Markdown } from './markdown';
import { TerminalText } from './terminal-text';

/** What an agent says: its Markdown, drawn once the reader is near, or else its lines. */
export function AgentText({ lines }: { lines: readonly string[] }) {
  const element = useRef<HTMLDivElement>(null);
  const isNear = useIsNear(element, true);
  const text = lines.join('\n');
  return (
    <div ref={element}>
      {isNear && isMarkdown(text) ? (
        <Suspense fallback={<Lines lines={lines} />}>
          <div className={styles.markdown}>
            <Markdown text={text} />
          </div>
        </Suspense>
      ) : (
        <Lines lines={lines} />
      )}
    </div>
  );
}

export function Lines({ lines }: { lines: readonly string[] }) {
  return lines.map((line, index) => (
    <p key={index}>
      <TerminalText line={line} />
    </p>
  ));
}
