import { expect, test } from 'vitest';

import { isSameJson, parseJson } from './json';
import { changedFields, merge } from './merge';

const BASE = { slots: '4', endpoint: '', model: 'opus', events: ['a'] };

test('changes of others to untouched fields are taken over', () => {
  const { draft, changes } = merge(BASE, { ...BASE, endpoint: 'mine' }, { ...BASE, slots: '6', events: ['a', 'b'] });
  expect(draft).toEqual({ ...BASE, endpoint: 'mine', slots: '6', events: ['a', 'b'] });
  expect(changes.map(({ field, isContested }) => [field, isContested])).toEqual([
    ['slots', false],
    ['events', false],
  ]);
});

test('a field that both changed keeps its own value and is contested', () => {
  const { draft, changes } = merge(BASE, { ...BASE, slots: '2' }, { ...BASE, slots: '6' });
  expect(draft.slots).toBe('2');
  expect(changes).toEqual([{ field: 'slots', mine: '2', theirs: '6', isContested: true }]);
});

test('the same change by both is no contest', () => {
  expect(merge(BASE, { ...BASE, slots: '6' }, { ...BASE, slots: '6' }).changes).toMatchObject([{ isContested: false }]);
});

test('only fields that differ are sent', () => {
  expect(changedFields({ a: 1, b: { x: 1, y: 2 }, c: null }, { a: 1, b: { y: 2, x: 1 }, c: 3 })).toEqual({ c: 3 });
});

test('the order of names does not matter, that of lists does', () => {
  expect(isSameJson({ a: 1, b: [1, 2] }, { b: [1, 2], a: 1 })).toBe(true);
  expect(isSameJson([1, 2], [2, 1])).toBe(false);
});

test('a JSON error has a place', () => {
  expect(parseJson('{"a": 1,\n  oops}')).toMatchObject({ error: expect.stringMatching(/line 2 column 3/) as string });
});
