import { expect, test } from 'vitest';

import { between } from './use-selection';

const list = ['a', 'b', 'c', 'd'].map((id) => ({ id }));

test('a range goes from the latest choice to the job, in both directions', () => {
  expect(between(list, 'b', 'd')).toEqual(['b', 'c', 'd']);
  expect(between(list, 'c', 'a')).toEqual(['a', 'b', 'c']);
  expect(between(list, 'b', 'b')).toEqual(['b']);
});

test('a choice that has left the list begins no range', () => {
  expect(between(list, 'gone', 'c')).toEqual(['c']);
});
