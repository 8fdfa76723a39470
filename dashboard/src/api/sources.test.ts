import { expect, test } from 'vitest';

import { causes } from './sources';

function condition(type: string) {
  return {
    type,
    status: 'False' as const,
    reason: 'Missing',
    message: `${type} is missing`,
    lastTransitionTime: '2030-01-01T00:00:00Z',
  };
}

test('a condition that only repeats another one is no cause', () => {
  expect(causes([condition('Ready'), condition('SecretFound')])).toEqual([condition('SecretFound')]);
  expect(causes([condition('Ready')])).toEqual([condition('Ready')]);
  expect(causes([])).toEqual([]);
});
