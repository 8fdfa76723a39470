import { useMemo, useState } from 'react';

import { visible } from '../../lib/ansi';
import { count } from '../../lib/format';
import { Icon } from '../../ui/icons';
import { useVirtualRows } from '../../ui/use-virtual-rows';
import { Numbers } from './changed-file';
import styles from './changes-tab.module.css';
import type { PatchFile } from './patch';
import { treeRows } from './tree-rows';

const ROW_HEIGHT = 28;
const INDENT = 14;

interface PatchTreeProps {
  files: readonly PatchFile[];
  chosen: string | undefined;
  viewed: ReadonlySet<string>;
  onOpen: (index: number) => void;
}

/** The changed files as a tree. Only the rows in sight are drawn. */
export function PatchTree({ files, chosen, viewed, onOpen }: PatchTreeProps) {
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  const rows = useMemo(() => treeRows(files, closed), [files, closed]);
  const { ref, first, end, height, offset } = useVirtualRows(rows.length, ROW_HEIGHT);
  const toggle = (path: string) =>
    setClosed((before) =>
      before.has(path) ? new Set([...before].filter((each) => each !== path)) : new Set([...before, path]),
    );
  return (
    <nav ref={ref} aria-label="Changed files" className={styles.tree}>
      <ul style={{ height, paddingBlockStart: offset }}>
        {rows.slice(first, end).map((row, position) => {
          const place = { 'aria-setsize': rows.length, 'aria-posinset': first + position + 1 };
          const style = { paddingInlineStart: 8 + row.depth * INDENT };
          if (row.kind === 'folder') {
            return (
              <li key={row.path} {...place}>
                <button
                  type="button"
                  className={styles.folder}
                  style={style}
                  aria-expanded={!closed.has(row.path)}
                  title={visible(row.path)}
                  onClick={() => toggle(row.path)}
                >
                  <Icon name={closed.has(row.path) ? 'chevronRight' : 'chevronDown'} size={12} />
                  <span className={styles.path}>{visible(row.name)}</span>
                  {closed.has(row.path) && <span className={styles.faint}>{count(row.files)}</span>}
                </button>
              </li>
            );
          }
          const file = files[row.index];
          return (
            file && (
              <li key={file.path} {...place}>
                <button
                  type="button"
                  style={style}
                  aria-current={file.path === chosen || undefined}
                  title={visible(file.path)}
                  data-viewed={viewed.has(file.path) || undefined}
                  onClick={() => onOpen(row.index)}
                >
                  <span className={styles.path}>{visible(row.name)}</span>
                  <Numbers added={file.added} removed={file.removed} />
                </button>
              </li>
            )
          );
        })}
      </ul>
    </nav>
  );
}
