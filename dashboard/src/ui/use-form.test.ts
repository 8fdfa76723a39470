import { expect, test } from 'vitest';

import { ApiError, errorOf } from '../api/client';
import { isNameTaken, problemsByField, Repeats, Texts } from './use-form';

const DRAFT = { slots: '4', priceInput: '', prices: '', eventTriggers: [] };

test('details of the API appear at the field that sets the value', () => {
  const details = [
    { field: 'slots', message: 'too many' },
    { field: 'prices.input', message: 'negative' },
    { field: 'eventTriggers[2].events', message: 'empty' },
    { field: 'name', message: 'taken' },
  ];
  expect(problemsByField(details, DRAFT, { 'prices.input': 'priceInput' })).toEqual({
    fields: { slots: 'too many', priceInput: 'negative', eventTriggers: '[2].events: empty' },
    others: ['name: taken'],
  });
});

test('several details of one field are joined', () => {
  expect(
    problemsByField(
      [
        { field: 'prices.a', message: 'x' },
        { field: 'prices.b', message: 'y' },
      ],
      DRAFT,
    ).fields,
  ).toEqual({ prices: 'a: x; b: y' });
});

test('texts become numbers, and empty ones null', () => {
  const texts = new Texts({ a: ' 1.5 ', b: '', c: 'x', d: '1.5', e: '' });
  expect([texts.minutes('a'), texts.number('b'), texts.number('c'), texts.whole('d'), texts.required('e')]).toEqual([
    90_000,
    null,
    null,
    null,
    null,
  ]);
  expect(texts.problems).toEqual({ c: 'must be a number', d: 'must be a whole number', e: 'is required' });
});

test('a range of minutes is reported in minutes', () => {
  const texts = new Texts({ most: '10080', over: '10081', none: '0' });
  expect([texts.minutes('most'), texts.minutes('over'), texts.minutes('none')]).toEqual([604_800_000, 604_860_000, 0]);
  expect(texts.problems).toEqual({ over: 'must be at most 10,080 minutes, 7 days', none: 'must be more than 0' });
});

test.each([
  new ApiError(409, 'conflict', "AiAgent 'first' exists already"),
  new ApiError(409, 'conflict', 'secrets "first" already exists'),
  new ApiError(409, 'conflict', "there is already a key named 'first'"),
  new ApiError(409, 'conflict', 'any words', [{ field: 'name', message: 'taken' }]),
])('the refusal "$message" names a taken name', (error) => {
  expect(isNameTaken(error)).toBe(true);
});

test.each([
  new ApiError(409, 'conflict', "the agent 'one' already has the triggerName 'two'"),
  new ApiError(422, 'invalid', 'invalid', [{ field: 'name', message: 'too long' }]),
])('the refusal "$message" does not', (error) => {
  expect(isNameTaken(error)).toBe(false);
});

const NO_ANSWER = errorOf(0, null);

test('a request without an answer is repeated with its key and body', () => {
  const repeats = new Repeats();
  const sent = repeats.next({ prompt: 'A', at: 1 });
  repeats.failed(sent, NO_ANSWER);
  expect(repeats.next({ prompt: 'A', at: 2 })).toEqual(sent);
});

test('an edit while a request is under way is sent, with another key', () => {
  const repeats = new Repeats();
  const sent = repeats.next({ prompt: 'A' });
  repeats.renew();
  repeats.failed(sent, NO_ANSWER);
  const next = repeats.next({ prompt: 'B' });
  expect(next.body).toEqual({ prompt: 'B' });
  expect(next.key).not.toBe(sent.key);
});

test('a refused request is not repeated', () => {
  const repeats = new Repeats();
  const sent = repeats.next({ prompt: 'A' });
  repeats.failed(sent, new ApiError(422, 'invalid', 'the prompt is too long'));
  const next = repeats.next({ prompt: 'B' });
  expect(next.body).toEqual({ prompt: 'B' });
  expect(next.key).not.toBe(sent.key);
});
