import { expect, test } from 'vitest';

import { problemsByField, Texts } from './use-form';

const DRAFT = { slots: '4', priceInput: '', prices: '', eventTriggers: [] };

test('details of the API appear at the field that sets the value', () => {
  const details = [{ field: 'slots', message: 'too many' }, { field: 'prices.input', message: 'negative' }, { field: 'eventTriggers[2].events', message: 'empty' }, { field: 'name', message: 'taken' }];
  expect(problemsByField(details, DRAFT, { 'prices.input': 'priceInput' })).toEqual({
    fields: { slots: 'too many', priceInput: 'negative', eventTriggers: '[2].events: empty' },
    others: ['name: taken'],
  });
});

test('several details of one field are joined', () => {
  expect(problemsByField([{ field: 'prices.a', message: 'x' }, { field: 'prices.b', message: 'y' }], DRAFT).fields).toEqual({ prices: 'a: x; b: y' });
});

test('texts become numbers, and empty ones null', () => {
  const texts = new Texts({ a: ' 1.5 ', b: '', c: 'x', d: '1.5', e: '' });
  expect([texts.number('a', 60_000), texts.number('b'), texts.number('c'), texts.whole('d'), texts.required('e')]).toEqual([90_000, null, null, null, null]);
  expect(texts.problems).toEqual({ c: 'must be a number', d: 'must be a whole number', e: 'is required' });
});
