/** Setup commands and cached folders as texts that people write: one a line. */

import { isSameJson } from './json';
import { networkRule, networkText, type NetworkRule } from './network';
import { MINUTE_MS } from './times';

export interface CachedFolder {
  key: string;
  path: string;
}

const TOKEN = /\n|[^\S\n]+|"(?:\\[^]|[^"\\])*"|'[^']*'|(?:\\.|[^\s"'\\])+|["'\\]/g;
/** Characters outside of quotes that a shell would not pass on to a program. */
const SHELL_ONLY = /&&|\|\||>>|[;&|<>`]|\$[\w{(]/;
const PLAIN = /^[\w@%+=:,./-]+$/;

/**
 * The words of each line, as a shell splits them. Words in quotes may have several lines. Throws an error with a
 * sentence for quotes that do not end, and for what only a shell understands.
 */
export function commandsOf(text: string): string[][] {
  const commands: string[][] = [];
  let words: string[] = [];
  let word: string | undefined;
  const endWord = () => {
    if (word !== undefined) words.push(word);
    word = undefined;
  };
  const endCommand = () => {
    endWord();
    if (words.length > 0) commands.push(words);
    words = [];
  };
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    if (token === '\n') endCommand();
    else if (token.trim() === '') endWord();
    else if (token === '"' || token === "'") throw new Error(`The quotes in “${lineAt(text, index)}” do not end.`);
    else {
      const shellOnly = /^["']/.test(token) ? null : SHELL_ONLY.exec(token.replace(/\\./g, ''));
      if (shellOnly !== null)
        throw new Error(
          `No shell runs “${lineAt(text, index)}”, which ${shellOnly[0]} needs: write a line for each command, or sh -c '…'.`,
        );
      word = (word ?? '') + unquoted(token);
    }
  }
  endCommand();
  return commands;
}

function unquoted(token: string): string {
  if (token.startsWith('"')) return token.slice(1, -1).replace(/\\(["\\$`])/g, '$1');
  return token.startsWith("'") ? token.slice(1, -1) : token.replace(/\\(.)/g, '$1');
}

function lineAt(text: string, index: number): string {
  return (text.slice(text.lastIndexOf('\n', index - 1) + 1).split('\n')[0] ?? '').trim();
}

export function commandsText(commands: readonly (readonly string[])[]): string {
  return commands.map((words) => words.map(quoted).join(' ')).join('\n');
}

function quoted(word: string): string {
  if (PLAIN.test(word)) return word;
  return word.includes("'") && !/["\\$`]/.test(word) ? `"${word}"` : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** The folder and the key file of each line `package-lock.json: node_modules`. Throws an error with a sentence. */
export function cacheOf(text: string): CachedFolder[] {
  return lines(text).map((line) => {
    const place = line.lastIndexOf(':');
    const [key, path] = [line.slice(0, place).trim(), line.slice(place + 1).trim()];
    if (place < 0 || key === '' || path === '')
      throw new Error(`Write a file and a folder in “${line}”, such as package-lock.json: node_modules.`);
    return { key, path };
  });
}

export function cacheText(cache: readonly CachedFolder[]): string {
  return cache.map(({ key, path }) => `${key}: ${path}`).join('\n');
}

/** The preparation of a workspace, as the API has it. Values that are not set are absent or null. */
export interface Setup {
  setup?: string[][] | null;
  setupTimeoutMs?: number | null;
  setupNetwork?: NetworkRule | null;
  cache?: CachedFolder[] | null;
}

/** The preparation of a workspace as texts of a form. */
export interface SetupDraft {
  setup: string;
  setupMinutes: string;
  setupNetwork: string;
  cache: string;
}

export const EMPTY_SETUP: SetupDraft = { setup: '', setupMinutes: '', setupNetwork: '', cache: '' };

export const SETUP_LABELS: Record<keyof SetupDraft, string> = {
  setup: 'Setup commands',
  setupMinutes: 'Time of the commands, minutes',
  setupNetwork: 'Network of the commands',
  cache: 'Cached folders',
};

/** The longest time of setup commands: a day. */
export const MOST_SETUP_MINUTES = 24 * 60;

/** Fields of the form by the field of the API. */
export const SETUP_NAMES = {
  'workspaceSetup.setup': 'setup',
  'workspaceSetup.setupTimeoutMs': 'setupMinutes',
  'workspaceSetup.setupNetwork': 'setupNetwork',
  'workspaceSetup.cache': 'cache',
} as const satisfies Record<string, keyof SetupDraft>;

export function setupDraft(setup: Setup): SetupDraft {
  return {
    setup: commandsText(setup.setup ?? []),
    setupMinutes: setup.setupTimeoutMs ? String(setup.setupTimeoutMs / MINUTE_MS) : '',
    setupNetwork: setup.setupNetwork ? networkText(setup.setupNetwork) : '',
    cache: cacheText(setup.cache ?? []),
  };
}

interface Reader {
  minutes: (field: keyof SetupDraft, most: number) => number | null;
  values: <Value>(field: keyof SetupDraft, parse: (text: string) => Value[]) => Value[] | null;
}

/** The preparation of a draft; null where nothing is set. read: converts its texts, and notes invalid ones. */
export function setupOf(draft: SetupDraft, read: Reader): Setup {
  return {
    setup: read.values('setup', commandsOf),
    setupTimeoutMs: read.minutes('setupMinutes', MOST_SETUP_MINUTES),
    setupNetwork: networkRule(draft.setupNetwork),
    cache: read.values('cache', cacheOf),
  };
}

/** The values that a form cannot show as texts, such as a folder with a colon in its name. Unset ones are left out. */
export function unshownSetup(setup: Setup): Partial<Setup> {
  const shown = { ...setup, ...shownLists(setup) };
  return Object.fromEntries(
    Object.entries(setup).filter(
      ([name, value]) => value !== null && !(name in EMPTY && isSameJson(shown[name as keyof Setup], value)),
    ),
  );
}

const EMPTY = { setup: null, setupTimeoutMs: null, setupNetwork: null, cache: null };

/** The lists as a form sends them without changes. */
function shownLists({ setup, cache }: Setup): Partial<Setup> {
  try {
    return {
      setup: setup?.length ? commandsOf(commandsText(setup)) : null,
      cache: cache?.length ? cacheOf(cacheText(cache)) : null,
    };
  } catch {
    return { setup: setup?.length ? setup : null, cache: null };
  }
}

function lines(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}
