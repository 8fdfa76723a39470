/** The changed files as a tree of folders, in rows. */

import type { PatchFile } from './patch';

export type TreeRow = { depth: number; name: string } & (
  { kind: 'folder'; path: string; files: number } | { kind: 'file'; index: number }
);

interface Folder {
  name: string;
  path: string;
  folders: Map<string, Folder>;
  /** Indexes of files. */
  files: number[];
  count: number;
}

/**
 * The rows of a tree. closed: paths of folders whose content is hidden. Folders with a single folder inside share its
 * row.
 */
export function treeRows(files: readonly PatchFile[], closed: ReadonlySet<string>): TreeRow[] {
  const root: Folder = { name: '', path: '', folders: new Map(), files: [], count: 0 };
  files.forEach((file, index) => {
    let folder = root;
    for (const name of file.path.split('/').slice(0, -1)) {
      const path = `${folder.path}${name}/`;
      const inner: Folder = folder.folders.get(name) ?? { name, path, folders: new Map(), files: [], count: 0 };
      folder.folders.set(name, inner);
      folder = inner;
      folder.count++;
    }
    folder.files.push(index);
  });
  const rows: TreeRow[] = [];
  const add = (folder: Folder, depth: number) => {
    for (const inner of folder.folders.values()) {
      let [shown, name] = [inner, inner.name];
      while (shown.files.length === 0 && shown.folders.size === 1) {
        for (const only of shown.folders.values()) [shown, name] = [only, `${name}/${only.name}`];
      }
      rows.push({ kind: 'folder', depth, name, path: shown.path, files: shown.count });
      if (!closed.has(shown.path)) add(shown, depth + 1);
    }
    for (const index of folder.files)
      rows.push({ kind: 'file', depth, name: files[index]?.path.split('/').at(-1) ?? '', index });
  };
  add(root, 0);
  return rows;
}
