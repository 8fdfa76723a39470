import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, expect, test } from 'vitest';

import { CHUNK_LINES, chunksOf, indexPatch, isFolded, pairs, readChunk, type PatchFile, type PatchLine } from './patch';

const folder = mkdtempSync(join(tmpdir(), 'patch-'));
afterAll(() => rmSync(folder, { recursive: true }));

const git = (...command: string[]) =>
  execFileSync(
    'git',
    ['-c', 'user.name=t', '-c', 'user.email=t@example.com', '-c', 'core.autocrlf=false', ...command],
    { cwd: folder, encoding: 'utf8' },
  );

/** A generator of repeatable random numbers. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((state / 2_147_483_648) * below);
  };
}

const bytes = (patch: string) => new TextEncoder().encode(patch);
const linesOf = (patch: Uint8Array, file: PatchFile) =>
  chunksOf(patch, file).flatMap((chunk) => readChunk(patch, chunk));
const MARKS = { context: ' ', added: '+', removed: '-', note: '\\ ', hunk: '' };
const serialised = (lines: PatchLine[]) => lines.map((line) => MARKS[line.kind] + line.text);

function serialise(patch: Uint8Array): string {
  return indexPatch(patch)
    .map((file) =>
      [
        `diff --git a/${file.path} b/${file.path}`,
        `--- a/${file.path}`,
        `+++ b/${file.path}`,
        ...serialised(linesOf(patch, file)),
        '',
      ].join('\n'),
    )
    .join('');
}

test('a patch that is parsed and written again applies to the same result', () => {
  git('init', '-q');
  const next = random(7);
  const texts = ['--- a', '+++ b', '@@ -1 +1 @@', 'diff --git a/x b/x', '', ' x', '\\ No newline', 'naïve'];
  const content = () =>
    Array.from({ length: 3 + next(30) }, () => texts[next(texts.length)]).join('\n') + (next(2) ? '\n' : '');
  for (let round = 0; round < 12; round++) {
    const before = content();
    writeFileSync(join(folder, 'file'), before);
    git('add', '-A');
    git('commit', '-qm', `round ${round}`, '--allow-empty');
    const after = content() + 'end\n';
    writeFileSync(join(folder, 'file'), after);
    const patch = git('diff', '--no-color');
    writeFileSync(join(folder, 'file'), before);
    execFileSync('git', ['apply', '--whitespace=nowarn', '-'], { cwd: folder, input: serialise(bytes(patch)) });
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe(after);
  }
});

test('paths, renames, deletions and binaries are recognised', () => {
  const patch = bytes(String.raw`diff --git a/a b.txt b/a b.txt
new file mode 100644
--- /dev/null
+++ b/a b.txt
@@ -0,0 +1 @@
+hello
\ No newline at end of file
diff --git a/gone b/gone
deleted file mode 100644
--- a/gone
+++ /dev/null
@@ -1 +0,0 @@
-bye
diff --git a/old.ts b/new.ts
similarity index 100%
rename from old.ts
rename to new.ts
diff --git "a/na\303\257ve" "b/na\303\257ve"
Binary files differ
diff --git a/logo.png b/logo.png
Binary files a/logo.png and b/logo.png differ
`);
  const files = indexPatch(patch);
  expect(
    files.map(({ path, oldPath, change, isBinary, added, removed }) => [
      path,
      oldPath,
      change,
      isBinary,
      added,
      removed,
    ]),
  ).toEqual([
    ['a b.txt', undefined, 'added', false, 1, 0],
    ['gone', undefined, 'deleted', false, 0, 1],
    ['new.ts', 'old.ts', 'renamed', false, 0, 0],
    ['naïve', undefined, 'modified', true, 0, 0],
    ['logo.png', undefined, 'modified', true, 0, 0],
  ]);
  expect(files[0] && linesOf(patch, files[0]).map((line) => line.kind)).toEqual(['hunk', 'added', 'note']);
});

test('files that are no ordinary ones have a note', () => {
  const heads = {
    'new file mode 100644': undefined,
    'new file mode 100755': 'executable',
    'new file mode 120000': 'symbolic link',
    'deleted file mode 160000': 'submodule',
    'old mode 100644\nnew mode 100755': 'now executable',
    'old mode 100755\nnew mode 100644': 'no longer executable',
    'index 1f7a7a4..83baae6 100755': undefined,
    'index 1f7a7a4..83baae6 120000': 'symbolic link',
  };
  for (const [head, note] of Object.entries(heads))
    expect(indexPatch(bytes(`diff --git a/x b/x\n${head}\n`)).map((file) => file.note)).toEqual([note]);
});

test('lock files, binaries and large files are folded', () => {
  const file = (fields: Partial<PatchFile>): PatchFile => ({
    path: 'a.ts',
    oldPath: undefined,
    change: 'modified',
    isBinary: false,
    note: undefined,
    added: 1,
    removed: 0,
    lines: 2,
    start: 0,
    end: 9,
    ...fields,
  });
  expect(
    [{}, { path: 'web/package-lock.json' }, { isBinary: true }, { added: 2_001 }].map((fields) =>
      isFolded(file(fields)),
    ),
  ).toEqual([false, true, true, true]);
});

test('replaced lines stand beside each other', () => {
  const patch = bytes('diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n-c\n+d\n e\n');
  const lines = indexPatch(patch)
    .flatMap((file) => linesOf(patch, file))
    .slice(1);
  expect(pairs(lines).map(([left, right]) => [left?.text, right?.text])).toEqual([
    ['a', 'a'],
    ['b', 'd'],
    ['c', undefined],
    ['e', 'e'],
  ]);
});

test('a long file is read in chunks that end between changes', () => {
  const hunk = (start: number) => `@@ -${start},3 +${start},3 @@ f()\n context\n-old ${start}\n+new ${start}\n end\n`;
  const patch = bytes(
    `diff --git a/f b/f\n--- a/f\n+++ b/f\n${Array.from({ length: 300 }, (_, index) => hunk(1 + index * 10)).join('')}`,
  );
  const [file] = indexPatch(patch);
  if (!file) throw new Error('the patch has no file');
  const chunks = chunksOf(patch, file);
  expect(file).toMatchObject({ added: 300, removed: 300, lines: 1_500 });
  expect(chunks.every((chunk) => chunk.lines >= CHUNK_LINES || chunk === chunks.at(-1))).toBe(true);
  expect(chunks.map((chunk) => readChunk(patch, chunk)[0]?.kind)).not.toContain('added');
  expect(chunks.flatMap((chunk) => readChunk(patch, chunk)).find((line) => line.text === 'new 2981')).toMatchObject({
    kind: 'added',
    after: 2_982,
  });
  expect(linesOf(patch, file)).toHaveLength(1_500);
});
