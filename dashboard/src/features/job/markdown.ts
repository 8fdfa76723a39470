/** Markdown of agents. What draws it is loaded with the first text that has any. */

import { lazy } from 'react';

export const Markdown = lazy(() => import('../../ui/markdown').then((module) => ({ default: module.Markdown })));

/** Characters up to which a text is drawn as Markdown while the agent runs: it is read again with each new line. */
const LONGEST = 20_000;

/** Headings, lists, quotes, blocks and spans of code, tables, bold text and links. */
const SIGNS = /^(?:#{1,6}|[-*+]|\d{1,9}[.)]|>) |^ {0,3}(?:```|~~~|\|.*\| *$)|\*\*\S|`[^`\n]+`|\]\(https?:/m;

/** Whether a text has signs of Markdown, and none of a terminal. */
export function isMarkdown(text: string): boolean {
  return text.length <= LONGEST && SIGNS.test(text) && !text.includes('\x1b');
}
