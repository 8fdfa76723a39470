import { expect, test } from 'vitest';

import { parseJson } from './json';

test.each([
  ['{"a": 1,\n "b": x}', 'line 2 column 7'],
  ['{"a": 1\n "b": 2}', 'line 2 column 2'],
  ['{"a": 1,\n}', 'line 2 column 1'],
  ['{"a": tru}', 'line 1 column 10'],
  ['{"a": "b', 'line 1 column 9'],
  ['{"a":\n', 'line 2 column 1'],
  ['{} {}', 'line 1 column 4'],
  ['x', 'line 1 column 1'],
  ['{"a": "\\x"}', 'line 1 column 9'],
])('the error of %j names %s', (text, place) => {
  expect(parseJson(text)).toEqual({ error: expect.stringContaining(place) as string });
});

test('valid JSON is parsed', () => {
  expect(parseJson(' {"a": [1, null]}\n')).toEqual({ value: { a: [1, null] } });
});
