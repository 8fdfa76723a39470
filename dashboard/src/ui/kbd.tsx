import styles from './kbd.module.css';

/** A key with the one that begins commands: `Ctrl K`, and `⌘ K` on Apple's keyboards. */
export function commandKey(key: string): string {
  return `${/Mac|iPhone|iPad/.test(navigator.userAgent) ? '⌘' : 'Ctrl'} ${key}`;
}

/** Keys of a shortcut. */
export function Keys({ keys }: { keys: string }) {
  return (
    <span className={styles.keys}>
      {keys.split(' ').map((key, index) => (
        <kbd key={index}>{key}</kbd>
      ))}
    </span>
  );
}
