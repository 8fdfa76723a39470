import { useId, useLayoutEffect, useRef, type MouseEvent, type PointerEvent, type ReactNode } from 'react';

import { visible } from '../lib/ansi';
import { IconButton } from './button';
import styles from './dialog.module.css';

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ReactNode;
  footer?: ReactNode;
  size?: 'small' | 'medium';
  /** Its content cannot be shown again: a click beside it does not close it. */
  isKept?: boolean;
}

/** Call `onClose` for a click beside a dialog. A selection of text that only ends there is none. */
export function useClickBeside(onClose: () => void) {
  const isBeside = useRef(false);
  return {
    onPointerDown: (event: PointerEvent) => {
      isBeside.current = event.target === event.currentTarget;
    },
    onClick: (event: MouseEvent) => {
      if (isBeside.current && event.target === event.currentTarget) onClose();
    },
  };
}

/** A modal dialog. It is open as long as it is rendered; Escape and a click beside it close it. */
export function Dialog({ title, onClose, children, footer, size = 'small', isKept = false }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  const beside = useClickBeside(isKept ? () => undefined : onClose);
  // A layout effect: its cleanup closes the dialog while it is still in the document, which gives the focus back to the
  // opener.
  useLayoutEffect(() => {
    const dialog = element.current;
    dialog?.showModal();
    dialog?.querySelector<HTMLElement>(':is(input, select, textarea):not([readonly])')?.focus();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={element}
      className={`${styles.dialog} ${styles[size]}`}
      aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      {...beside}
    >
      <div className={styles.content}>
        <header className={styles.header}>
          <h2 id={titleId}>{visible(title)}</h2>
          <IconButton label="Close" icon="close" onClick={onClose} />
        </header>
        <div className={styles.body}>{children}</div>
        {footer && <footer className={styles.footer}>{footer}</footer>}
      </div>
    </dialog>
  );
}
