import type { ButtonHTMLAttributes, ReactNode } from 'react';

import styles from './button.module.css';
import { Icon, type IconName } from './icons';

type Kind = 'primary' | 'plain' | 'quiet' | 'danger';

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: Kind;
  icon?: IconName;
  isBusy?: boolean;
  children?: ReactNode;
}

export function buttonClass(kind: Kind = 'plain'): string {
  return `${styles.button ?? ''} ${styles[kind] ?? ''}`;
}

export function Button({ kind = 'plain', icon, isBusy = false, children, disabled, className, ...rest }: ButtonProps) {
  return (
    <button type="button" className={`${buttonClass(kind)} ${className ?? ''}`} disabled={disabled || isBusy} aria-busy={isBusy || undefined} {...rest}>
      {icon && <Icon name={icon} size={14} />}
      {children}
    </button>
  );
}

/** A button that shows only an icon. label: its name for assistive technology, and its tooltip. */
export function IconButton({ label, icon, className, ...rest }: { label: string; icon: IconName } & ButtonHTMLAttributes<HTMLButtonElement>) {
  return (
    <button type="button" className={`${styles.iconButton} ${className ?? ''}`} aria-label={label} title={label} {...rest}>
      <Icon name={icon} />
    </button>
  );
}
