import { describe, expect, test } from 'vitest';

import { isMarkdown } from './markdown';

describe('a text is Markdown if it has', () => {
  test.each([
    ['a heading', '## What changed'],
    ['a list', 'Two tests fail:\n- login\n- logout'],
    ['a numbered list', '1. Read the test'],
    ['a block of code', '```ts\nawait save()\n```'],
    ['a span of code', 'The cause is `signIn`.'],
    ['bold text', 'It **passes** now.'],
    ['a link', 'See [the issue](https://example.com/1).'],
    ['a table', '| check | time |'],
  ])('%s', (_, text) => {
    expect(isMarkdown(text)).toBe(true);
  });
});

describe('a text is no Markdown if', () => {
  test.each([
    ['it has no signs', 'I run the failing test first.\n2 * 3 = 6, a_b_c, #12'],
    ['it has colours of a terminal', '- \x1b[31mfailed\x1b[0m'],
    ['it is long', `- ${'x'.repeat(20_000)}`],
  ])('%s', (_, text) => {
    expect(isMarkdown(text)).toBe(false);
  });
});
