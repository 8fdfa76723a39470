import type { ButtonHTMLAttributes, MouseEvent, ReactNode } from 'react';

import { useMayChange } from './access';
import styles from './button.module.css';
import { Icon, type IconName } from './icons';
import { useKeptFocus } from './keep-focus';

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

/**
 * The properties of a button that may be disabled. It can still have the focus, which would be lost while it is busy,
 * and it ignores clicks.
 */
function useDisabled(isDisabled: boolean, onClick: ButtonHTMLAttributes<HTMLButtonElement>['onClick']) {
  return {
    ref: useKeptFocus<HTMLButtonElement>(),
    'aria-disabled': isDisabled || undefined,
    onClick: (event: MouseEvent<HTMLButtonElement>) => {
      if (isDisabled)
        event.preventDefault(); // of the form
      else onClick?.(event);
    },
  };
}

export function Button({
  kind = 'plain',
  icon,
  isBusy = false,
  isChanging = false,
  children,
  disabled = false,
  className,
  onClick,
  ...rest
}: ButtonProps) {
  const mayChange = useMayChange();
  const properties = useDisabled(disabled || isBusy, onClick);
  if (isChanging && !mayChange) return null;
  return (
    <button
      type="button"
      className={`${buttonClass(kind)} ${className ?? ''}`}
      aria-busy={isBusy || undefined}
      {...rest}
      {...properties}
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
export function IconButton({
  label,
  icon,
  isChanging = false,
  disabled = false,
  className,
  onClick,
  ...rest
}: IconButtonProps) {
  const mayChange = useMayChange();
  const properties = useDisabled(disabled, onClick);
  if (isChanging && !mayChange) return null;
  return (
    <button
      type="button"
      className={`${styles.iconButton} ${className ?? ''}`}
      aria-label={label}
      title={label}
      {...rest}
      {...properties}
    >
      <Icon name={icon} />
    </button>
  );
}
