import { Dialog } from '../ui/dialog';
import { commandKey, Keys } from '../ui/kbd';
import { activeShortcuts, setShortcutsEnabled, useShortcutsEnabled } from '../ui/shortcuts';
import styles from './shortcuts-help.module.css';

export function ShortcutsHelp({ onClose }: { onClose: () => void }) {
  const isEnabled = useShortcutsEnabled();
  const shown = activeShortcuts().filter((shortcut) => !shortcut.isHidden);
  return (
    <Dialog title="Keyboard shortcuts" onClose={onClose} size="medium">
      <dl className={styles.list}>
        {[{ keys: commandKey('K'), label: 'Search, pages and actions' }, ...shown].map(({ keys, label }) => (
          <div key={keys}>
            <dt>{label}</dt>
            <dd>
              <Keys keys={keys} />
            </dd>
          </div>
        ))}
      </dl>
      <label className={styles.setting}>
        <input type="checkbox" checked={isEnabled} onChange={(event) => setShortcutsEnabled(event.target.checked)} />
        Single letters are shortcuts. Switch this off if you control the computer by voice.
      </label>
    </Dialog>
  );
}
