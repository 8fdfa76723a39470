/** Events folded into what an agent did: a call and its answer are one entry, consecutive lines of text are one. */

import type { JobEvent } from '../../api/events';
import { plain } from '../../lib/ansi';

interface Base {
  /** The id of the first event. */
  id: string;
  attempt: number;
  at: string;
}

export interface TextEntry extends Base {
  kind: 'text';
  /** The writer of the lines, if that is known. */
  origin: JobEvent['origin'];
  lines: string[];
}

export interface CallEntry extends Base {
  kind: 'call';
  name: string;
  input: unknown;
  /** Undefined while the call runs. */
  output: string | null | undefined;
  isError: boolean;
  endedAt: string | undefined;
  /** Input and output of the requests that led to the call, and those until its answer. costUsd: null if unknown. */
  tokens: number;
  costUsd: number | null;
}

export interface StateEntry extends Base {
  kind: 'state';
  state: string;
  message: string | null;
}

export interface ErrorEntry extends Base {
  kind: 'error';
  code: string;
  message: string;
}

export interface EndEntry extends Base {
  kind: 'end';
  message: string;
}

export type Entry = TextEntry | CallEntry | StateEntry | ErrorEntry | EndEntry;

/**
 * Return whether an event is the line of the log that an executor writes just before the event of a call or an answer.
 */
export function isSummary(event: JobEvent | null | undefined): boolean {
  return event?.kind === 'log' && event.origin === 'tool' && /^[→←] /.test(event.text ?? '');
}

/** The longest text that is one entry. */
const MAX_LINES = 200;

interface Spent {
  tokens: number;
  costUsd: number | null;
}

const NOTHING_SPENT: Spent = { tokens: 0, costUsd: 0 };

/** Fold events into entries, in order. */
export function fold(events: readonly JobEvent[]): Entry[] {
  const entries: Entry[] = [];
  const calls = new Map<string, CallEntry>();
  let previous: JobEvent | undefined;
  let total = events[0]?.id.endsWith('-1') ? NOTHING_SPENT : undefined; // of the attempt so far; unknown in its middle
  let unclaimed = NOTHING_SPENT; // since the latest call was answered
  for (const event of events) {
    const base = { id: event.id, attempt: event.attempt, at: event.at };
    switch (event.kind) {
      case 'log': {
        const last = entries.at(-1);
        if (
          last?.kind === 'text' &&
          last.attempt === event.attempt &&
          last.origin === event.origin &&
          last.lines.length < MAX_LINES
        )
          last.lines.push(event.text ?? '');
        else entries.push({ ...base, kind: 'text', origin: event.origin, lines: [event.text ?? ''] });
        break;
      }
      case 'tool': {
        if (isSummary(previous)) dropLastLine(entries);
        const key = `${event.attempt} ${event.call}`;
        const open = calls.get(key);
        if (open && event.name == null) {
          open.output = event.output ?? null;
          open.isError = event.isError ?? false;
          open.endedAt = event.at;
          calls.delete(key);
          break;
        }
        const isAnswer = event.name == null;
        const call: CallEntry = {
          ...base,
          kind: 'call',
          name: event.name ?? 'answer',
          input: event.input,
          isError: event.isError ?? false,
          output: isAnswer ? (event.output ?? null) : undefined,
          endedAt: isAnswer ? event.at : undefined,
          tokens: 0,
          costUsd: 0,
        };
        if (!isAnswer) {
          Object.assign(call, unclaimed);
          unclaimed = NOTHING_SPENT;
          calls.set(key, call);
        }
        entries.push(call);
        break;
      }
      case 'status':
        entries.push({ ...base, kind: 'state', state: event.state ?? '', message: event.message ?? null });
        break;
      case 'error':
        entries.push({ ...base, kind: 'error', code: event.code ?? 'internal', message: event.message ?? '' });
        break;
      case 'result':
        entries.push({ ...base, kind: 'end', message: 'The attempt completed.' });
        break;
      case 'usage': {
        const before = total;
        total = spent(event);
        if (!before) break;
        const more = difference(total, before);
        const open = [...calls.values()].at(-1);
        if (open) Object.assign(open, sum(open, more));
        else unclaimed = sum(unclaimed, more);
        break;
      }
      default:
        break; // outputs stand in the head of the page, and a line of the log names a refused host
    }
    previous = event;
  }
  return entries;
}

function spent({ usage }: JobEvent): Spent {
  return { tokens: (usage?.inputTokens ?? 0) + (usage?.outputTokens ?? 0), costUsd: usage?.costUsd ?? null };
}

/** What was spent between two totals. A corrected total may be lower. */
function difference(after: Spent, before: Spent): Spent {
  return {
    tokens: Math.max(0, after.tokens - before.tokens),
    costUsd: after.costUsd === null || before.costUsd === null ? null : Math.max(0, after.costUsd - before.costUsd),
  };
}

function sum(a: Spent, b: Spent): Spent {
  return {
    tokens: a.tokens + b.tokens,
    costUsd: a.costUsd === null || b.costUsd === null ? null : a.costUsd + b.costUsd,
  };
}

function dropLastLine(entries: Entry[]): void {
  const last = entries.at(-1);
  if (last?.kind !== 'text') return;
  last.lines.pop();
  if (last.lines.length === 0) entries.pop();
}

/** Whether two folds of growing events show an entry alike. */
export function isSameEntry(before: Entry, after: Entry): boolean {
  if (before.id !== after.id || before.kind !== after.kind) return false;
  if (before.kind === 'text' && after.kind === 'text') return before.lines.length === after.lines.length;
  return (
    before.kind !== 'call' ||
    after.kind !== 'call' ||
    (before.endedAt === after.endedAt && before.tokens === after.tokens && before.costUsd === after.costUsd)
  );
}

/** Whether a text occurs in an entry. needle: in lower case. */
export function contains(entry: Entry, needle: string): boolean {
  return texts(entry).some((text) => text.toLowerCase().includes(needle));
}

function texts(entry: Entry): readonly string[] {
  switch (entry.kind) {
    case 'text':
      return entry.lines.map(plain);
    case 'call':
      return [
        entry.name,
        typeof entry.input === 'string' ? entry.input : entry.input === undefined ? '' : JSON.stringify(entry.input),
        plain(entry.output ?? ''),
      ];
    case 'state':
      return [entry.state, entry.message ?? ''];
    case 'error':
      return [entry.code, entry.message];
    case 'end':
      return [entry.message];
  }
}

/** A short description of a call's arguments: the command, the file or the pattern, else their JSON. */
export function callSummary(input: unknown): string {
  if (typeof input === 'string') return firstLine(input);
  if (typeof input !== 'object' || input === null)
    return input === undefined || input === null ? '' : JSON.stringify(input);
  const fields = input as Record<string, unknown>;
  for (const name of ['command', 'cmd', 'file_path', 'path', 'pattern', 'query', 'url', 'description', 'prompt']) {
    const value = fields[name];
    if (typeof value === 'string') return firstLine(value);
    if (Array.isArray(value) && value.every((each) => typeof each === 'string')) return firstLine(value.join(' '));
  }
  return firstLine(JSON.stringify(input));
}

/** The whole input of a call, or the whole output of an answer. */
export function wholeText(event: JobEvent): string {
  if (event.name == null) return event.output ?? '';
  return typeof event.input === 'string'
    ? event.input
    : event.input === undefined || event.input === null
      ? ''
      : JSON.stringify(event.input);
}

function firstLine(text: string): string {
  const [line = ''] = text.trim().split('\n', 1);
  return line.length > 300 ? `${line.slice(0, 300)}…` : line;
}
