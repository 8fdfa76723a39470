import { expect, test } from 'vitest';

import { cacheOf, cacheText, commandsOf, commandsText } from './setup';

test('words are split as a shell does', () => {
  expect(commandsOf(`npm ci\n\n  sh -c "make \\"all\\" && echo '$X'" --name='a b'c ''`)).toEqual([
    ['npm', 'ci'],
    ['sh', '-c', `make "all" && echo '$X'`, '--name=a bc', ''],
  ]);
});

test('quotes that do not end are an error', () => {
  expect(() => commandsOf(`sh -c 'x`)).toThrow('do not end');
  expect(() => commandsOf(`echo "a' b`)).toThrow('do not end');
});

test('commands survive the way through their text', () => {
  const commands = [
    ['npm', 'ci'],
    ['sh', '-c', `it's "quoted" \\ $X`],
    ['echo', `it's`],
    ['a', ''],
  ];
  expect(commandsOf(commandsText(commands))).toEqual(commands);
});

test('cached folders have a line each', () => {
  const cache = [
    { key: 'package-lock.json', path: 'node_modules' },
    { key: 'a:b', path: 'c' },
  ];
  expect(cacheOf(cacheText(cache))).toEqual(cache);
  expect(() => cacheOf('node_modules')).toThrow('node_modules');
});
