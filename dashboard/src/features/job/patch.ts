/**
 * Patches in git's format with random access: an index of the files, and the lines of a file in chunks.
 *
 * A patch may have 64 MiB and millions of lines, so it stays the bytes that it came in. It is read in a worker.
 */

export interface PatchLine {
  kind: 'hunk' | 'context' | 'added' | 'removed' | 'note';
  text: string;
  before: number | undefined;
  after: number | undefined;
}

export interface PatchFile {
  path: string;
  /** The path before, if it differs. */
  oldPath: string | undefined;
  change: 'added' | 'deleted' | 'renamed' | 'modified';
  isBinary: boolean;
  /** What the file is, or becomes, other than an ordinary one. */
  note: string | undefined;
  added: number;
  removed: number;
  /** Lines to show: the changes, their context, and the heads of hunks. */
  lines: number;
  /** The bytes of the hunks. */
  start: number;
  end: number;
}

/** Some lines of a file that are read together. */
export interface Chunk {
  lines: number;
  start: number;
  end: number;
  /** The state of the reader before the first line. */
  position: Position;
}

interface Position {
  before: number;
  after: number;
  beforeLeft: number;
  afterLeft: number;
}

/** The least number of lines of a chunk. It then goes on to the end of a change, for lines that stand side by side. */
export const CHUNK_LINES = 200;
const LONGEST_CHUNK = 4 * CHUNK_LINES;

const GENERATED =
  /(^|\/)(package-lock\.json|yarn\.lock|pnpm-lock\.yaml|Cargo\.lock|poetry\.lock|uv\.lock|go\.sum|composer\.lock|Gemfile\.lock)$|\.(min\.(js|css)|map|snap|lock)$/;
const LARGE = 2_000;
const [NEWLINE, PLUS, MINUS, BACKSLASH, AT, LETTER_D] = [0x0a, 0x2b, 0x2d, 0x5c, 0x40, 0x64];
const AT_START: Position = { before: 0, after: 0, beforeLeft: 0, afterLeft: 0 };

/** Whether a file is shown only on request: large, binary or generated. */
export function isFolded(file: PatchFile): boolean {
  return file.isBinary || GENERATED.test(file.path) || file.added + file.removed > LARGE;
}

/** The files of a patch. */
export function indexPatch(patch: Uint8Array): PatchFile[] {
  const files: PatchFile[] = [];
  let file: PatchFile | undefined;
  let [beforeLeft, afterLeft] = [0, 0];
  for (let start = 0, end = 0; start < patch.length; start = end) {
    end = lineEnd(patch, start);
    const first = patch[start];
    if (file && (beforeLeft > 0 || afterLeft > 0) && first !== BACKSLASH) {
      file.lines++;
      file.end = end;
      if (first === PLUS) [file.added, afterLeft] = [file.added + 1, afterLeft - 1];
      else if (first === MINUS) [file.removed, beforeLeft] = [file.removed + 1, beforeLeft - 1];
      else [beforeLeft, afterLeft] = [beforeLeft - 1, afterLeft - 1];
    } else if (first === LETTER_D && text(patch, start, end).startsWith('diff --git ')) {
      file = {
        path: pathInHeader(text(patch, start, end)),
        oldPath: undefined,
        change: 'modified',
        isBinary: false,
        note: undefined,
        added: 0,
        removed: 0,
        lines: 0,
        start: end,
        end,
      };
      files.push(file);
    } else if (file && first === BACKSLASH) {
      if (file.lines > 0) [file.lines, file.end] = [file.lines + 1, end];
    } else if (file && first === AT) {
      const hunk = readHunkHeader(text(patch, start, end));
      if (!hunk) continue;
      ({ beforeLeft, afterLeft } = hunk);
      if (file.lines === 0) file.start = start;
      file.lines++;
      file.end = end;
    } else if (file && file.lines === 0 && !file.isBinary) {
      readHeader(file, text(patch, start, end));
    }
  }
  return files;
}

/** The chunks of a file's lines, without the lines themselves. */
export function chunksOf(patch: Uint8Array, file: PatchFile): Chunk[] {
  const chunks: Chunk[] = [];
  let position = AT_START;
  let chunk: Chunk = { lines: 0, start: file.start, end: file.start, position };
  for (let start = file.start, end = 0; start < file.end; start = end) {
    end = lineEnd(patch, start);
    const isChange = patch[start] === PLUS || patch[start] === MINUS;
    if ((chunk.lines >= CHUNK_LINES && !isChange) || chunk.lines >= LONGEST_CHUNK) {
      chunks.push(chunk);
      chunk = { lines: 0, start, end, position };
    }
    position = after(position, patch, start, end);
    chunk.lines++;
    chunk.end = end;
  }
  return chunk.lines > 0 ? [...chunks, chunk] : chunks;
}

/** The lines of a chunk. */
export function readChunk(patch: Uint8Array, chunk: Chunk): PatchLine[] {
  const lines: PatchLine[] = [];
  let position = chunk.position;
  for (let start = chunk.start, end = 0; start < chunk.end; start = end) {
    end = lineEnd(patch, start);
    lines.push(readLine(text(patch, start, end), position));
    position = after(position, patch, start, end);
  }
  return lines;
}

function readLine(line: string, { before, after: behind, beforeLeft, afterLeft }: Position): PatchLine {
  const content = line.slice(1);
  if (line.startsWith('\\')) return { kind: 'note', text: line.slice(2), before: undefined, after: undefined };
  if (beforeLeft <= 0 && afterLeft <= 0) return { kind: 'hunk', text: line, before: undefined, after: undefined };
  if (line.startsWith('+')) return { kind: 'added', text: content, before: undefined, after: behind };
  if (line.startsWith('-')) return { kind: 'removed', text: content, before, after: undefined };
  return { kind: 'context', text: content, before, after: behind };
}

/** The state of the reader after a line of a hunk, or the head of one. */
function after(position: Position, patch: Uint8Array, start: number, end: number): Position {
  const first = patch[start];
  const { before, after: behind, beforeLeft, afterLeft } = position;
  if (first === BACKSLASH) return position;
  if (beforeLeft <= 0 && afterLeft <= 0) return readHunkHeader(text(patch, start, end)) ?? position;
  if (first === PLUS) return { ...position, after: behind + 1, afterLeft: afterLeft - 1 };
  if (first === MINUS) return { ...position, before: before + 1, beforeLeft: beforeLeft - 1 };
  return { before: before + 1, after: behind + 1, beforeLeft: beforeLeft - 1, afterLeft: afterLeft - 1 };
}

function readHunkHeader(line: string): Position | undefined {
  const match = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/.exec(line);
  return match
    ? {
        before: Number(match[1]),
        after: Number(match[3]),
        beforeLeft: Number(match[2] ?? 1),
        afterLeft: Number(match[4] ?? 1),
      }
    : undefined;
}

/** Notes by git's modes of files. */
const KINDS: Record<string, string> = { '100755': 'executable', '120000': 'symbolic link', '160000': 'submodule' };
const CHANGED_KINDS: Record<string, string> = {
  ...KINDS,
  '100644': 'no longer executable',
  '100755': 'now executable',
};

/** The note in a line of the head, which names the mode of a new, deleted, changed or other file. */
function noteIn(line: string): string | undefined {
  const [, of, mode = ''] = /^(new file mode|deleted file mode|new mode|index \S+) (\d{6})$/.exec(line) ?? [];
  if (of === 'new mode') return CHANGED_KINDS[mode];
  return of?.startsWith('index') && mode === '100755' ? undefined : KINDS[mode]; // it was executable before
}

/** Read a line between `diff --git` and the first hunk. */
function readHeader(file: PatchFile, line: string): void {
  file.note ??= noteIn(line);
  if (line.startsWith('new file')) file.change = 'added';
  else if (line.startsWith('deleted file')) file.change = 'deleted';
  else if (line.startsWith('rename from ')) {
    file.change = 'renamed';
    file.oldPath = unquoted(line.slice('rename from '.length));
  } else if (line.startsWith('rename to ')) file.path = unquoted(line.slice('rename to '.length));
  else if (line.startsWith('Binary files ') || line === 'GIT binary patch') file.isBinary = true;
  else if (line.startsWith('--- ') && file.change === 'deleted') file.path = pathInLine(line) ?? file.path;
  else if (line.startsWith('+++ ')) file.path = pathInLine(line) ?? file.path;
}

/** The start of the next line. */
function lineEnd(patch: Uint8Array, start: number): number {
  const end = patch.indexOf(NEWLINE, start);
  return end < 0 ? patch.length : end + 1;
}

const decoder = new TextDecoder();

/** A line, without its newline. */
function text(patch: Uint8Array, start: number, end: number): string {
  return decoder.decode(patch.subarray(start, patch[end - 1] === NEWLINE ? end - 1 : end));
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
  return decoder.decode(new Uint8Array(bytes));
}

/** Pairs of lines for two columns: removed lines beside the lines that replace them. */
export function pairs(lines: readonly PatchLine[]): [PatchLine | undefined, PatchLine | undefined][] {
  const result: [PatchLine | undefined, PatchLine | undefined][] = [];
  for (let index = 0; index < lines.length;) {
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
