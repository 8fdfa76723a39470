import { expect, test } from 'vitest';

import { ApiError } from './client';
import { changeField } from './versions';

const shown = { slots: 3, endpoint: '', resourceVersion: '1' };

function changeAt(version: string, sent: object[]) {
  return (changes: { slots: number; resourceVersion: string }) => {
    sent.push(changes);
    if (changes.resourceVersion !== version) return Promise.reject(new ApiError(409, 'conflict', 'stale'));
    return Promise.resolve({ ...shown, ...changes });
  };
}

test('a change to a resource whose other fields have changed is sent again', async () => {
  const sent: object[] = [];
  await changeField(shown, 'slots', 5, changeAt('2', sent), () =>
    Promise.resolve({ ...shown, endpoint: 'x', resourceVersion: '2' }),
  );
  expect(sent).toEqual([
    { slots: 5, resourceVersion: '1' },
    { slots: 5, resourceVersion: '2' },
  ]);
});

test('a change that others made to the same field is not overwritten', async () => {
  const sent: object[] = [];
  const read = () => Promise.resolve({ ...shown, slots: 8, resourceVersion: '2' });
  await expect(changeField(shown, 'slots', 5, changeAt('2', sent), read)).rejects.toThrow('slots is 8 now');
  expect(sent).toHaveLength(1);
});

test('a conflict that is not about the version is shown', async () => {
  await expect(changeField(shown, 'slots', 5, changeAt('9', []), () => Promise.resolve(shown))).rejects.toThrow(
    'stale',
  );
});
