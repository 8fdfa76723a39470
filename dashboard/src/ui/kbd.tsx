import styles from './kbd.module.css';

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
