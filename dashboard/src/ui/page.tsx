import { useEffect, type ReactNode } from 'react';

import styles from './page.module.css';

/** Set the title of the document. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title ? `${title} · Labrats` : 'Labrats';
  }, [title]);
}

/** A page with a heading and, beside it, its actions. */
export function Page({
  title,
  actions,
  children,
  isWide = false,
}: {
  title: string;
  actions?: ReactNode;
  children: ReactNode;
  isWide?: boolean;
}) {
  useTitle(title);
  return (
    <div className={`${styles.page} ${isWide ? styles.wide : ''}`}>
      <div className={styles.heading}>
        <h1>{title}</h1>
        {actions}
      </div>
      {children}
    </div>
  );
}

/** A titled part of a page. */
export function Panel({ title, note, children }: { title: string; note?: ReactNode; children: ReactNode }) {
  return (
    <section className={styles.panel} aria-label={title}>
      <header>
        <h2>{title}</h2>
        {note}
      </header>
      {children}
    </section>
  );
}
