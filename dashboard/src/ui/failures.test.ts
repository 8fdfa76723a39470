import { readFileSync } from 'node:fs';

import { expect, test } from 'vitest';

import { codeAdvice, codeMeaning } from './failures';

const UNKNOWN = 'toString';

/** The codes of the API, as its generated types list them. */
const CODES =
  /^ {8}FailedCode: (.+);$/m
    .exec(readFileSync(new URL('../api/schema.d.ts', import.meta.url), 'utf8'))?.[1]
    ?.split(' | ')
    .map((code) => code.slice(1, -1)) ?? [];

test('the API has codes of failures', () => {
  expect(CODES).toContain('rate_limited');
});

test.each(CODES)('%s has a meaning of its own and an advice, each a sentence', (code) => {
  for (const text of [codeMeaning(code), codeAdvice(code)]) expect(text).toMatch(/^[A-Z][^.]*\.$/);
  expect(codeMeaning(code)).not.toBe(codeMeaning(UNKNOWN));
});

test('an unknown code has a general sentence', () => {
  expect(codeMeaning(UNKNOWN)).toBe('The job failed.');
});
