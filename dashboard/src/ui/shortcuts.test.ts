import { expect, test } from 'vitest';

import { resolve, type Shortcut } from './shortcuts';

const shortcut = (keys: string): Shortcut => ({ keys, label: keys, run: () => undefined });
const shortcuts = [shortcut('j'), shortcut('g j'), shortcut('?')];

test('a single key is a shortcut', () => {
  expect(resolve(shortcuts, '', 'j').shortcut?.keys).toBe('j');
});

test('a sequence has precedence over its last key', () => {
  expect(resolve(shortcuts, '', 'g')).toEqual({ begun: 'g' });
  expect(resolve(shortcuts, 'g', 'j').shortcut?.keys).toBe('g j');
});

test('another key ends a sequence', () => {
  expect(resolve(shortcuts, 'g', 'x')).toEqual({ begun: '' });
  expect(resolve(shortcuts, 'g', '?').shortcut?.keys).toBe('?');
});
