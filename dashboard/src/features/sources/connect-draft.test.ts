import { expect, test } from 'vitest';

import type { System } from '../../api/keys';
import { connectedRepositories, connectedSentence, stepOf } from './connect-draft';

const github = (hasApp: boolean, ...repositories: string[][]) =>
  ({ hasApp, sources: repositories.map((each) => ({ name: 'github', repositories: each })) }) as System['github'];

test('a code is stored only in the tab that asked for it', () => {
  expect(stepOf(github(false), { code: 'c', state: 's' }, 's')).toBe('store');
  expect(stepOf(github(false), { code: 'c', state: 's' }, 't')).toBe('other attempt');
  expect(stepOf(github(false), { code: 'c' }, null)).toBe('other attempt');
});

test('a stored App is not created again', () => {
  expect(stepOf(github(true), {}, null)).toBe('choose');
  expect(stepOf(github(false), {}, 's')).toBe('start');
});

test('repositories are connected whatever their case', () => {
  expect([...connectedRepositories(github(true, ['Octo/A'], ['octo/b']))]).toEqual(['octo/a', 'octo/b']);
});

test('the sentence tells how events arrive', () => {
  const connection = { source: 'github', repositories: ['octo/a', 'octo/b'], mode: 'poll' };
  const sentences = ['poll', 'webhook'].map((mode) => connectedSentence({ ...connection, mode } as never));
  expect(sentences).toEqual([
    'github reads octo/a, octo/b once a minute.',
    'github receives the events of octo/a, octo/b.',
  ]);
});
