import { useEffect, type ReactNode } from 'react';

import styles from './page.module.css';
import { Loading } from './states';

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
  isForm = false,
}: {
  title: string;
  actions?: ReactNode;
  children: ReactNode;
  /** The content is a form, which is narrower. */
  isForm?: boolean;
}) {
  useTitle(title);
  return (
    <div className={styles.page}>
      <div className={`${styles.heading} ${isForm ? styles.form : ''}`}>
        <h1>{title}</h1>
        {actions}
      </div>
      {children}
    </div>
  );
}

/** A page whose code is being loaded. */
export function PageLoading() {
  return (
    <div className={styles.page}>
      <h1 className="visually-hidden">Loading</h1>
      <Loading height={36} />
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
