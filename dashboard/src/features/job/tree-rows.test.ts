import { expect, test } from 'vitest';

import type { PatchFile } from './patch';
import { treeRows } from './tree-rows';

const files = ['README.md', 'src/app/a.ts', 'src/app/b.ts', 'src/lib/deep/c.ts'].map((path) => ({ path }) as PatchFile);
const shown = (closed: string[] = []) =>
  treeRows(files, new Set(closed)).map((row) => `${'  '.repeat(row.depth)}${row.name}`);

test('folders come first, and one that only holds a folder shares its row', () => {
  expect(shown()).toEqual(['src', '  app', '    a.ts', '    b.ts', '  lib/deep', '    c.ts', 'README.md']);
});

test('a closed folder hides its files and tells their number', () => {
  expect(shown(['src/app/', 'src/lib/deep/'])).toEqual(['src', '  app', '  lib/deep', 'README.md']);
  expect(treeRows(files, new Set())[0]).toMatchObject({ kind: 'folder', files: 3 });
});
