/** The state of a job's page, as it stands in the URL. */

import { oneOf, positive, text } from '../../lib/search';

export const KINDS = ['errors', 'tools', 'text'] as const;
export type Kind = (typeof KINDS)[number];

export interface JobSearch {
  attempt?: number;
  line?: number;
  q?: string;
  show?: Kind;
  file?: string;
  view?: 'split';
  time?: 'clock';
}

export function validateJobSearch(search: Record<string, unknown>): JobSearch {
  const result: JobSearch = {};
  const attempt = positive(search['attempt']);
  if (attempt !== undefined) result.attempt = attempt;
  const line = positive(search['line']);
  if (line !== undefined) result.line = line;
  const q = text(search['q']);
  if (q !== undefined) result.q = q;
  const file = text(search['file']);
  if (file !== undefined) result.file = file;
  const show = oneOf(search['show'], KINDS);
  if (show) result.show = show;
  if (text(search['view']) === 'split') result.view = 'split';
  if (text(search['time']) === 'clock') result.time = 'clock';
  return result;
}
