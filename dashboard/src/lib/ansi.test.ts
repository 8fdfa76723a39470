import { expect, test } from 'vitest';

import { plain, spans, visible } from './ansi';

test('colours become styles, and a reset ends them', () => {
  expect(spans('a\u001b[1;31mred\u001b[0mz')).toEqual([
    { text: 'a', styles: [] },
    { text: 'red', styles: ['bold', 'fg-1'] },
    { text: 'z', styles: [] },
  ]);
});

test('bright, indexed and true colours become the most similar named colour', () => {
  expect(spans('\u001b[92mok').map((span) => span.styles)).toEqual([['fg-10']]);
  expect(spans('\u001b[38;5;3mok').map((span) => span.styles)).toEqual([['fg-3']]);
  for (const [code, style] of [
    ['38;5;196', 'fg-1'],
    ['38;5;46', 'fg-2'],
    ['38;5;214', 'fg-3'],
    ['38;5;33', 'fg-6'],
    ['38;5;21', 'fg-4'],
    ['38;5;240', 'fg-8'],
    ['38;5;250', 'fg-7'],
    ['38;2;250;10;10', 'fg-1'],
  ] as const)
    expect(spans(`\u001b[${code}mok`).map((span) => span.styles)).toEqual([[style]]);
  expect(spans('\u001b[38;2;1;2;3;1mok').map((span) => span.styles)).toEqual([['bold', 'fg-8']]);
  expect(spans('\u001b[48;5;196;32mok').map((span) => span.styles)).toEqual([['fg-2']]);
});

test('cursor movements and titles disappear, and other control characters are shown', () => {
  expect(spans('\u001b[2K\u001b]0;title\u0007done')).toEqual([{ text: 'done', styles: [] }]);
  expect(visible('a\u0007b\u001bc')).toBe('a␇b␛c');
});

test('characters that change the direction of text are shown by their code', () => {
  expect(visible('user\u202egnp.exe')).toBe('user⟨U+202E⟩gnp.exe');
  expect(visible('a\u200db, \u{1f469}\u200da')).toBe('a⟨U+200D⟩b, \u{1f469}⟨U+200D⟩a');
});

test('invisible characters are shown by their code, except those of people', () => {
  for (const code of ['061C', '0085', '115F', '180E', '2028', '206F', '3164', 'FEFF', 'E0001', 'E0041'])
    expect(visible(`a${String.fromCodePoint(parseInt(code, 16))}b`)).toBe(`a⟨U+${code}⟩b`);
  for (const text of ['soft\u00adhyphen', '\u2764\ufe0f', '\u845b\u{e0100}', 'ünïcödé, שלום, 日本'])
    expect(visible(text)).toBe(text);
});

test('joined emoji stay whole', () => {
  for (const emoji of [
    '\u{1f469}\u200d\u{1f4bb}',
    '\u{1f469}\u{1f3fd}\u200d\u{1f4bb}',
    '\u{1f3f3}\ufe0f\u200d\u{1f308}',
    '\u{1f469}\u200d\u{1f469}\u200d\u{1f467}',
  ])
    expect(visible(emoji)).toBe(emoji);
});

test('HTML stays text', () => {
  expect(spans('<script>alert(1)</script>')).toEqual([{ text: '<script>alert(1)</script>', styles: [] }]);
});

test('plain text has no escape sequences', () => {
  expect(plain('\u001b[1;31mred\u001b[0m line')).toBe('red line');
});
