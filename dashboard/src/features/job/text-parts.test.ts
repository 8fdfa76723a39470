import { expect, test } from 'vitest';

import { PART, partsOf } from './text-parts';

test.each(['', 'short', 'x'.repeat(PART)])('a text of at most one part stays whole', (text) => {
  expect(partsOf(text)).toEqual([text]);
});

test('parts end after a line, contain the whole text, and have a limited length', () => {
  const text = `${'a line of text\n'.repeat(40_000)}end`;
  const parts = partsOf(text);
  expect(parts.join('')).toBe(text);
  expect(Math.max(...parts.map((part) => part.length))).toBeLessThanOrEqual(PART);
  expect(parts.slice(0, -1).every((part) => part.endsWith('\n'))).toBe(true);
});

test('a long line is cut, but no character of two units', () => {
  const text = `x${'😀'.repeat(PART)}`;
  const parts = partsOf(text);
  expect(parts.join('')).toBe(text);
  expect(parts.every((part) => part.isWellFormed())).toBe(true);
});
