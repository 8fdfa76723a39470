import { useSyncExternalStore } from 'react';

import { readStored, writeStored } from '../lib/storage';

export const THEMES = ['system', 'light', 'dark'] as const;
export type Theme = (typeof THEMES)[number];

const SETTING = 'labrats.theme';
const watchers = new Set<() => void>();
let theme: Theme = THEMES.find((each) => each === readStored('localStorage', SETTING)) ?? 'system';

/** Apply the stored theme. Called once, before the first render. */
export function applyTheme(): void {
  if (theme === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = theme;
}

export function setTheme(next: Theme): void {
  theme = next;
  writeStored('localStorage', SETTING, next === 'system' ? undefined : next);
  applyTheme();
  for (const watcher of watchers) watcher();
}

function subscribe(changed: () => void): () => void {
  watchers.add(changed);
  return () => watchers.delete(changed);
}

export function useTheme(): Theme {
  return useSyncExternalStore(subscribe, () => theme);
}
