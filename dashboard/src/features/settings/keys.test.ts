import { expect, test } from 'vitest';

import { EMPTY_KEY, hasExpired, keyBody, permission } from './keys';

const NOON = Date.parse('2030-01-01T12:00:00Z');

test('a key expires after its lifetime, or never', () => {
  expect(keyBody({ name: ' ci ', scope: 'submit', lifetime: '7' }, NOON).body).toEqual({
    name: 'ci',
    scopes: ['submit'],
    expiresAt: '2030-01-08T12:00:00.000Z',
  });
  expect(keyBody({ name: 'ci', scope: 'admin', lifetime: '' }, NOON).body).toEqual({
    name: 'ci',
    scopes: ['submit', 'admin'],
  });
  expect(keyBody({ name: 'ci', scope: 'viewer', lifetime: '' }, NOON).body).toEqual({ name: 'ci', scopes: ['viewer'] });
  expect([['submit'], ['viewer'], ['submit', 'admin']].map(permission)).toEqual(['submit', 'read only', 'everything']);
});

test('a key needs a name', () => {
  expect(keyBody(EMPTY_KEY).problems).toEqual({ name: 'is required' });
});

test('a key without an end does not expire', () => {
  expect([
    hasExpired(null, NOON),
    hasExpired('2030-01-01T12:00:00Z', NOON),
    hasExpired('2030-01-01T12:00:01Z', NOON),
  ]).toEqual([false, true, false]);
});
