import { useMayChange } from './access';
import styles from './switch.module.css';

/** A setting that takes effect at once. label: names it for assistive technology. */
export function Switch({
  label,
  isOn,
  isBusy = false,
  onChange,
}: {
  label: string;
  isOn: boolean;
  isBusy?: boolean;
  onChange: (isOn: boolean) => void;
}) {
  const mayChange = useMayChange();
  return (
    <button
      type="button"
      role="switch"
      aria-checked={isOn}
      aria-label={label}
      title={isOn ? 'On' : 'Off'}
      disabled={isBusy || !mayChange}
      className={styles.switch}
      onClick={() => onChange(!isOn)}
    >
      <span />
    </button>
  );
}
