import type { ReactNode } from 'react';

import styles from './table.module.css';

/** Classes for cells: `number` aligns to the end, `minor` disappears on phones, `end` holds buttons. */
export const cell = {
  number: styles.number ?? '',
  minor: styles.minor ?? '',
  end: styles.end ?? '',
  name: styles.name ?? '',
};

/** A short table. columns: each a heading and the class of its cells. Headings of columns with buttons are hidden. */
export function Table({
  label,
  columns,
  children,
}: {
  label: string;
  columns: readonly (readonly [heading: string, className?: string])[];
  children: ReactNode;
}) {
  return (
    <table className={styles.table} aria-label={label}>
      <thead>
        <tr>
          {columns.map(([heading, className]) => (
            <th key={heading} scope="col" className={className}>
              {className === cell.end ? <span className="visually-hidden">{heading}</span> : heading}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>{children}</tbody>
    </table>
  );
}
