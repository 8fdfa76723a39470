/** The keyboard layer: single keys, and sequences of two, such as `g j`. */

import { useLayoutEffect, useRef, useSyncExternalStore } from 'react';

import { readStored, writeStored } from '../lib/storage';
import { useMayChange } from './access';

export interface Shortcut {
  /** One key of `KeyboardEvent.key`, or two separated by a space. */
  keys: string;
  label: string;
  run: () => void;
  /** Hidden in the list of shortcuts. */
  isHidden?: boolean;
  /** It changes something, so viewers do not have it. */
  isChanging?: boolean;
}

const SEQUENCE_TIMEOUT = 1_000;
const SETTING = 'labrats.shortcuts';

const sets: { readonly current: readonly Shortcut[] }[] = [];
let isEnabled = readStored('localStorage', SETTING) !== 'off';
let first = '';
let timer: ReturnType<typeof setTimeout> | undefined;
const watchers = new Set<() => void>();

function notify(): void {
  for (const watcher of watchers) watcher();
}

export function setShortcutsEnabled(enabled: boolean): void {
  isEnabled = enabled;
  writeStored('localStorage', SETTING, enabled ? undefined : 'off');
  notify();
}

function subscribe(changed: () => void): () => void {
  watchers.add(changed);
  return () => watchers.delete(changed);
}

/** Whether single-letter keys are shortcuts. They can be switched off, since speech input triggers them. */
export function useShortcutsEnabled(): boolean {
  return useSyncExternalStore(subscribe, () => isEnabled);
}

/** All shortcuts of the current page, those of inner parts first. */
export function activeShortcuts(): Shortcut[] {
  return sets.toReversed().flatMap((set) => set.current);
}

/** Add shortcuts while the calling part is shown, from its first frame on: a key pressed at once is not lost. */
export function useShortcuts(shortcuts: readonly Shortcut[]): void {
  const mayChange = useMayChange();
  const allowed = mayChange ? shortcuts : shortcuts.filter((each) => !each.isChanging);
  const set = useRef(allowed);
  useLayoutEffect(() => {
    set.current = allowed;
  });
  useLayoutEffect(() => {
    sets.push(set);
    return () => {
      sets.splice(sets.indexOf(set), 1);
    };
  }, []);
}

/** The shortcut that a key completes, and the first key of a sequence that it begins. */
export function resolve(
  shortcuts: readonly Shortcut[],
  begun: string,
  key: string,
): { shortcut?: Shortcut | undefined; begun: string } {
  const shortcut =
    (begun ? shortcuts.find((each) => each.keys === `${begun} ${key}`) : undefined) ??
    shortcuts.find((each) => each.keys === key);
  if (shortcut) return { shortcut, begun: '' };
  return { begun: shortcuts.some((each) => each.keys.startsWith(`${key} `)) ? key : '' };
}

function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) &&
    !(target instanceof HTMLInputElement && /^(checkbox|radio)$/.test(target.type))
  );
}

/** Return whether a key acts on the control that has the focus: Enter and Space press buttons and open links. */
function pressesControl({ key, target }: KeyboardEvent): boolean {
  return (
    (key === 'Enter' || key === ' ') &&
    target instanceof Element &&
    target.closest('a, button, input, summary, [role^="menuitem"]') !== null
  );
}

const SCROLLING_KEYS: ReadonlySet<string> = new Set([' ', 'ArrowDown', 'ArrowUp', 'Home', 'End']);

/**
 * Return whether a key scrolls the part that has the focus. Parts with the attribute `data-shortcuts` leave their keys
 * to shortcuts.
 */
function scrollsPart({ key, target }: KeyboardEvent): boolean {
  return (
    SCROLLING_KEYS.has(key) &&
    target instanceof Element &&
    target.closest('[tabindex="0"]:not([data-shortcuts])') !== null
  );
}

function press(event: KeyboardEvent): void {
  if (
    event.defaultPrevented ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    isTyping(event.target) ||
    pressesControl(event) ||
    scrollsPart(event)
  )
    return;
  if (document.querySelector('dialog[open]')) return;
  if (!isEnabled && event.key.length === 1) return;
  clearTimeout(timer);
  const result = resolve(activeShortcuts(), first, event.key);
  first = result.begun;
  if (first) timer = setTimeout(() => (first = ''), SEQUENCE_TIMEOUT);
  if (result.shortcut) {
    event.preventDefault();
    result.shortcut.run();
  }
}

/** Listen for shortcuts. Called once. */
export function listenForShortcuts(): void {
  document.addEventListener('keydown', press);
}
