import type { ButtonHTMLAttributes, ReactNode } from 'react';

import { useMayChange } from './access';
import styles from './button.module.css';
import { Icon, type IconName } from './icons';

type Kind = 'primary' | 'plain' | 'quiet' | 'danger';

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: Kind;
  icon?: IconName;
  isBusy?: boolean;
  /** The button changes something, so viewers do not see it. */
  isChanging?: boolean;
  children?: ReactNode;
}

export function buttonClass(kind: Kind = 'plain'): string {
  return `${styles.button ?? ''} ${styles[kind] ?? ''}`;
}

export function Button({
  kind = 'plain',
  icon,
  isBusy = false,
  isChanging = false,
  children,
  disabled,
  className,
  ...rest
}: ButtonProps) {
  const mayChange = useMayChange();
  if (isChanging && !mayChange) return null;
  return (
    <button
      type="button"
      className={`${buttonClass(kind)} ${className ?? ''}`}
      disabled={disabled || isBusy}
      aria-busy={isBusy || undefined}
      {...rest}
    >
      {icon && <Icon name={icon} size={14} />}
      {children}
    </button>
  );
}

interface IconButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  /** The button's name for assistive technology, and its tooltip. */
  label: string;
  icon: IconName;
  isChanging?: boolean;
}

/** A button that shows only an icon. */
export function IconButton({ label, icon, isChanging = false, className, ...rest }: IconButtonProps) {
  const mayChange = useMayChange();
  if (isChanging && !mayChange) return null;
  return (
    <button
      type="button"
      className={`${styles.iconButton} ${className ?? ''}`}
      aria-label={label}
      title={label}
      {...rest}
    >
      <Icon name={icon} />
    </button>
  );
}
