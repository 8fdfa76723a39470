import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, expect, test } from 'vitest';

import { isFolded, pairs, parsePatch, type FilePatch } from './patch';

const folder = mkdtempSync(join(tmpdir(), 'patch-'));
afterAll(() => rmSync(folder, { recursive: true }));

const git = (...command: string[]) =>
  execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.com', '-c', 'core.autocrlf=false', ...command], { cwd: folder, encoding: 'utf8' });

/** A generator of repeatable random numbers. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((state / 2_147_483_648) * below);
  };
}

function serialise(files: FilePatch[]): string {
  const mark = { context: ' ', added: '+', removed: '-', note: '\\ ' };
  return files.map((file) =>
    [`diff --git a/${file.path} b/${file.path}`, `--- a/${file.path}`, `+++ b/${file.path}`,
      ...file.hunks.flatMap((hunk) => [hunk.header, ...hunk.lines.map((line) => mark[line.kind] + line.text)]), ''].join('\n')).join('');
}

test('a patch that is parsed and written again applies to the same result', () => {
  git('init', '-q');
  const next = random(7);
  const texts = ['--- a', '+++ b', '@@ -1 +1 @@', 'diff --git a/x b/x', '', ' x', '\\ No newline', 'naïve'];
  const content = () => Array.from({ length: 3 + next(30) }, () => texts[next(texts.length)]).join('\n') + (next(2) ? '\n' : '');
  for (let round = 0; round < 12; round++) {
    const before = content();
    writeFileSync(join(folder, 'file'), before);
    git('add', '-A');
    git('commit', '-qm', `round ${round}`, '--allow-empty');
    const after = content() + 'end\n';
    writeFileSync(join(folder, 'file'), after);
    const patch = git('diff', '--no-color');
    writeFileSync(join(folder, 'file'), before);
    execFileSync('git', ['apply', '--whitespace=nowarn', '-'], { cwd: folder, input: serialise(parsePatch(patch)) });
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe(after);
  }
});

test('paths, renames, deletions and binaries are recognised', () => {
  const files = parsePatch(String.raw`diff --git a/a b.txt b/a b.txt
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
  expect(files.map(({ path, oldPath, change, isBinary, added, removed }) => [path, oldPath, change, isBinary, added, removed])).toEqual([
    ['a b.txt', undefined, 'added', false, 1, 0],
    ['gone', undefined, 'deleted', false, 0, 1],
    ['new.ts', 'old.ts', 'renamed', false, 0, 0],
    ['naïve', undefined, 'modified', true, 0, 0],
    ['logo.png', undefined, 'modified', true, 0, 0],
  ]);
  expect(files[0]?.hunks[0]?.lines.at(-1)).toMatchObject({ kind: 'note' });
});

test('lock files, binaries and large files are folded', () => {
  const file = (fields: Partial<FilePatch>): FilePatch => ({ path: 'a.ts', oldPath: undefined, change: 'modified', isBinary: false, added: 1, removed: 0, hunks: [], ...fields });
  expect([{}, { path: 'web/package-lock.json' }, { isBinary: true }, { added: 2_001 }].map((fields) => isFolded(file(fields)))).toEqual([false, true, true, true]);
});

test('replaced lines stand beside each other', () => {
  const [file] = parsePatch('diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n-c\n+d\n e\n');
  expect(pairs(file?.hunks[0]?.lines ?? []).map(([left, right]) => [left?.text, right?.text])).toEqual([['a', 'a'], ['b', 'd'], ['c', undefined], ['e', 'e']]);
});
