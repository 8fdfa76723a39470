import { useMayChange } from './access';
import styles from './switch.module.css';
import { useQueued } from './use-queued';

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
  const [shown, set] = useQueued(isOn, isBusy, onChange);
  return (
    <button
      type="button"
      role="switch"
      aria-checked={shown}
      aria-label={label}
      title={shown ? 'On' : 'Off'}
      aria-busy={isBusy || undefined}
      disabled={!mayChange}
      className={styles.switch}
      onClick={() => set(!shown)}
    >
      <span />
    </button>
  );
}
