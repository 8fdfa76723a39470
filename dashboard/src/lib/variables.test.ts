import { expect, test } from 'vitest';

import { NEW_VARIABLE, variableDrafts, variablesOf } from './variables';

test('a form that is not changed stands for the same variables', () => {
  const variables = { CI: '1', EMPTY: '', LINES: 'a\nb ', NPM_TOKEN: { secret: 'npm', key: 'token' } };
  expect(variablesOf(variableDrafts(variables))).toEqual(variables);
  expect(variablesOf(variableDrafts(undefined))).toBeNull();
});

test('rows without a text are left out', () => {
  expect(variablesOf([NEW_VARIABLE, { ...NEW_VARIABLE, name: ' CI ', value: '1' }])).toEqual({ CI: '1' });
  expect(variablesOf([{ ...NEW_VARIABLE, isSecret: true, value: 'hidden' }])).toBeNull();
});

test.each([
  [{ value: '1' }, 'needs a name'],
  [{ name: 'A', isSecret: true, secret: 'npm' }, 'A needs the name and a key'],
  [{ name: 'CI' }, 'CI occurs twice'],
])('the variable %j beside CI is a problem', (part, problem) => {
  const ci = { ...NEW_VARIABLE, name: 'CI', value: '1' };
  expect(() => variablesOf([ci, { ...NEW_VARIABLE, ...part }])).toThrow(problem);
});
