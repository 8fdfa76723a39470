import { expect, test } from 'vitest';

import { codeAdvice, codeMeaning, FAILED_CODES } from './failures';

test.each(FAILED_CODES)('%s has a meaning and an advice in whole sentences', (code) => {
  for (const text of [codeMeaning(code), codeAdvice(code)]) expect(text).toMatch(/^[A-Z].*\.$/);
});

test('an unknown code has a general sentence', () => {
  expect(codeMeaning('toString')).toBe('The job failed.');
});
