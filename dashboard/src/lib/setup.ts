/** Setup commands and cached folders as texts that people write: one a line. */

export interface CachedFolder {
  key: string;
  path: string;
}

const WORD = /(?:[^\s"']|"(?:\\.|[^"\\])*"|'[^']*')+/g;
const QUOTED = /"((?:\\.|[^"\\])*)"|'([^']*)'/g;
const PLAIN = /^[\w@%+=:,./-]+$/;

/** The words of each line, as a shell splits them. Throws an error with a sentence for quotes that do not end. */
export function commandsOf(text: string): string[][] {
  return lines(text).map((line) => {
    if (/["']/.test(line.replace(QUOTED, ''))) throw new Error(`The quotes in “${line}” do not end.`);
    return (line.match(WORD) ?? []).map((word) =>
      word.replace(
        QUOTED,
        (_, double?: string, single?: string) => double?.replace(/\\(["\\$`])/g, '$1') ?? single ?? '',
      ),
    );
  });
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

function lines(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}
