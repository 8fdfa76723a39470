/** A parser for patches in git's format. It runs in a worker. */

export interface PatchLine {
  kind: 'context' | 'added' | 'removed' | 'note';
  text: string;
  before: number | undefined;
  after: number | undefined;
}

export interface Hunk {
  header: string;
  lines: PatchLine[];
}

export interface FilePatch {
  path: string;
  /** The path before, if it differs. */
  oldPath: string | undefined;
  change: 'added' | 'deleted' | 'renamed' | 'modified';
  isBinary: boolean;
  added: number;
  removed: number;
  hunks: Hunk[];
}

const GENERATED = /(^|\/)(package-lock\.json|yarn\.lock|pnpm-lock\.yaml|Cargo\.lock|poetry\.lock|uv\.lock|go\.sum|composer\.lock|Gemfile\.lock)$|\.(min\.(js|css)|map|snap|lock)$/;
const LARGE = 2_000;

/** Whether a file is shown only on request: large, binary or generated. */
export function isFolded(file: FilePatch): boolean {
  return file.isBinary || GENERATED.test(file.path) || file.added + file.removed > LARGE;
}

export function parsePatch(patch: string): FilePatch[] {
  const files: FilePatch[] = [];
  let file: FilePatch | undefined;
  let hunk: Hunk | undefined;
  let [before, after, beforeLeft, afterLeft] = [0, 0, 0, 0];

  for (const line of lines(patch)) {
    if (hunk && file && (beforeLeft > 0 || afterLeft > 0)) {
      const text = line.slice(1);
      if (line.startsWith('+')) {
        hunk.lines.push({ kind: 'added', text, before: undefined, after: after++ });
        file.added++;
        afterLeft--;
        continue;
      }
      if (line.startsWith('-')) {
        hunk.lines.push({ kind: 'removed', text, before: before++, after: undefined });
        file.removed++;
        beforeLeft--;
        continue;
      }
      if (!line.startsWith('\\')) {
        hunk.lines.push({ kind: 'context', text, before: before++, after: after++ });
        beforeLeft--;
        afterLeft--;
        continue;
      }
    }
    if (line.startsWith('diff --git ')) {
      file = { path: pathInHeader(line), oldPath: undefined, change: 'modified', isBinary: false, added: 0, removed: 0, hunks: [] };
      hunk = undefined;
      files.push(file);
    } else if (!file) {
      continue;
    } else if (line.startsWith('\\')) {
      hunk?.lines.push({ kind: 'note', text: line.slice(2), before: undefined, after: undefined });
    } else if (line.startsWith('@@ ')) {
      const match = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/.exec(line);
      if (!match) continue;
      [before, after] = [Number(match[1]), Number(match[3])];
      [beforeLeft, afterLeft] = [Number(match[2] ?? 1), Number(match[4] ?? 1)];
      hunk = { header: line, lines: [] };
      file.hunks.push(hunk);
    } else if (line.startsWith('new file')) file.change = 'added';
    else if (line.startsWith('deleted file')) file.change = 'deleted';
    else if (line.startsWith('rename from ')) {
      file.change = 'renamed';
      file.oldPath = unquoted(line.slice('rename from '.length));
    } else if (line.startsWith('rename to ')) file.path = unquoted(line.slice('rename to '.length));
    else if (line.startsWith('Binary files ') || line === 'GIT binary patch') file.isBinary = true;
    else if (line.startsWith('--- ') && file.change === 'deleted') file.path = pathInLine(line) ?? file.path;
    else if (line.startsWith('+++ ')) file.path = pathInLine(line) ?? file.path;
  }
  return files;
}

/** The lines of a text, one by one, so that a patch of many megabytes is not copied as a whole. */
function* lines(text: string): Generator<string> {
  let start = 0;
  while (start < text.length) {
    const end = text.indexOf('\n', start);
    yield end < 0 ? text.slice(start) : text.slice(start, end);
    if (end < 0) return;
    start = end + 1;
  }
}

/** The path of `diff --git a/x b/x`, which is the same on both sides unless the file was renamed. */
function pathInHeader(line: string): string {
  const rest = line.slice('diff --git '.length);
  if (rest.startsWith('"')) return unquoted(/^"(?:[^"\\]|\\.)*"/.exec(rest)?.[0] ?? rest).replace(/^a\//, '');
  const half = (rest.length - 1) / 2;
  return rest.slice(0, half).replace(/^a\//, '');
}

/** The path of `--- a/x` or `+++ b/x`; undefined for /dev/null. */
function pathInLine(line: string): string | undefined {
  const path = unquoted(line.slice(4).replace(/\t.*$/, ''));
  return path === '/dev/null' ? undefined : path.replace(/^[ab]\//, '');
}

/** The path that git writes between quotation marks: bytes beyond ASCII are octal. */
function unquoted(path: string): string {
  if (!path.startsWith('"')) return path;
  const bytes: number[] = [];
  const inner = path.slice(1, -1);
  for (let index = 0; index < inner.length; index++) {
    if (inner[index] !== '\\') {
      bytes.push(...new TextEncoder().encode(inner[index]));
      continue;
    }
    const octal = /^[0-7]{3}/.exec(inner.slice(index + 1, index + 4));
    if (octal) {
      bytes.push(parseInt(octal[0], 8));
      index += 3;
    } else {
      const escaped = inner[++index] ?? '';
      bytes.push(({ n: 10, t: 9, r: 13 } as Record<string, number>)[escaped] ?? escaped.charCodeAt(0));
    }
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}

/** Pairs of lines for two columns: removed lines beside the lines that replace them. */
export function pairs(lines: readonly PatchLine[]): [PatchLine | undefined, PatchLine | undefined][] {
  const result: [PatchLine | undefined, PatchLine | undefined][] = [];
  for (let index = 0; index < lines.length; ) {
    const removed = run(lines, index, 'removed');
    const added = run(lines, index + removed.length, 'added');
    if (removed.length + added.length === 0) {
      const line = lines[index++];
      result.push([line, line]);
      continue;
    }
    for (let row = 0; row < Math.max(removed.length, added.length); row++) result.push([removed[row], added[row]]);
    index += removed.length + added.length;
  }
  return result;
}

function run(lines: readonly PatchLine[], start: number, kind: PatchLine['kind']): PatchLine[] {
  let end = start;
  while (lines[end]?.kind === kind) end++;
  return lines.slice(start, end);
}
