import { Fragment } from 'react';

import { spans } from '../../lib/ansi';
import styles from './terminal-text.module.css';

/** A line of terminal output, with its colours. needle: text to mark, in lower case. */
export function TerminalText({ line, needle = '' }: { line: string; needle?: string }) {
  return (
    <>
      {spans(line).map((span, index) => (
        <span
          key={index}
          className={span.styles.map((name) => styles[name.replace('-', '')] ?? '').join(' ') || undefined}
        >
          {needle ? <Marked text={span.text} needle={needle} /> : span.text}
        </span>
      ))}
    </>
  );
}

/** Text in which each occurrence of the needle is marked. */
export function Marked({ text, needle }: { text: string; needle: string }) {
  const parts: { text: string; isHit: boolean }[] = [];
  const lower = text.toLowerCase();
  let position = 0;
  for (let hit = lower.indexOf(needle); hit >= 0; hit = lower.indexOf(needle, position)) {
    parts.push(
      { text: text.slice(position, hit), isHit: false },
      { text: text.slice(hit, hit + needle.length), isHit: true },
    );
    position = hit + needle.length;
  }
  parts.push({ text: text.slice(position), isHit: false });
  return parts.map((part, index) =>
    part.isHit ? (
      <mark key={index} className={styles.hit}>
        {part.text}
      </mark>
    ) : (
      <Fragment key={index}>{part.text}</Fragment>
    ),
  );
}
