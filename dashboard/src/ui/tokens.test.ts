import { readFileSync } from 'node:fs';

import { expect, test } from 'vitest';

const css = readFileSync(new URL('tokens.css', import.meta.url), 'utf8');
const tokens = new Map(
  [...css.matchAll(/--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)/g)].map(([, name = '', light = '', dark = '']) => [
    name,
    { light, dark },
  ]),
);

function luminance(colour: string): number {
  const channels = [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16) / 255);
  const [r = 0, g = 0, b = 0] = channels.map((c) => (c <= 0.040_45 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [dark = 0, light = 0] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

const TEXT = [
  'text',
  'text-soft',
  'text-faint',
  'accent',
  'waiting',
  'active',
  'completed',
  'failed',
  'cancelled',
  'ansi-1',
  'ansi-2',
  'ansi-3',
  'ansi-4',
  'ansi-5',
  'ansi-6',
];
const SURFACES = ['background', 'sunken', 'raised', 'hover', 'selected'];
const PAIRS = [
  ...TEXT.flatMap((text) => SURFACES.map((surface) => [text, surface, 4.5] as const)),
  ...['text', 'text-soft'].flatMap((text) =>
    ['added-surface', 'removed-surface', 'failed-surface', 'waiting-surface', 'hit'].map(
      (surface) => [text, surface, 4.5] as const,
    ),
  ),
  ['failed', 'failed-surface', 4.5] as const,
  ['failed', 'removed-surface', 4.5] as const,
  ['completed', 'added-surface', 4.5] as const,
  ['waiting', 'waiting-surface', 4.5] as const,
  ['on-accent', 'accent-fill', 4.5] as const,
  ['on-accent', 'accent-fill-hover', 4.5] as const,
  ['control-line', 'background', 3] as const,
  ['control-line', 'raised', 3] as const,
  ['focus', 'background', 3] as const,
];

test.each(['light', 'dark'] as const)('every text is readable on its surface in the %s theme', (theme) => {
  const colour = (name: string) => {
    const token = tokens.get(name);
    if (!token) throw new Error(`no token --${name}`);
    return token[theme];
  };
  const low = PAIRS.map(([text, surface, least]) => ({
    text,
    surface,
    least,
    ratio: contrast(colour(text), colour(surface)),
  }))
    .filter(({ ratio, least }) => ratio < least)
    .map(({ text, surface, ratio }) => `${text} on ${surface}: ${ratio.toFixed(2)}`);
  expect(low).toEqual([]);
});
