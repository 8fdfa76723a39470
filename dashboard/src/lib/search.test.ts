import { expect, test } from 'vitest';

import { isSet, oneOf, parseSearch, positive, stringifySearch, text, texts } from './search';

test.each([
  ['', {}],
  ['?q=a+b', { q: 'a b' }],
  ['?status=failed&status=active', { status: ['failed', 'active'] }],
  ['?q=%22%26%3D', { q: '"&=' }],
])('%s is parsed and written back unchanged', (search, values) => {
  expect(parseSearch(search)).toEqual(values);
  expect(stringifySearch(parseSearch(search))).toBe(search);
});

test('empty values are not written', () => {
  expect(stringifySearch({ a: '', b: undefined, c: [], d: 0, e: false, f: true })).toBe('?d=0&f=true');
});

test('values of the wrong kind are ignored', () => {
  expect(text(['a', 'b'])).toBe('a');
  expect(text('')).toBeUndefined();
  expect(texts(['failed', 'nonsense'], ['active', 'failed'])).toEqual(['failed']);
  expect(oneOf('nonsense', ['oldest'])).toBeUndefined();
  expect(positive('-1')).toBeUndefined();
  expect(positive('1e99')).toBeUndefined();
  expect([positive('12'), positive(12)]).toEqual([12, 12]);
});

test('a flag is set in the URL and in links', () => {
  expect([isSet('true'), isSet(true), isSet(undefined), isSet('')]).toEqual([true, true, false, false]);
});
