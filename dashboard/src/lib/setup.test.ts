import { expect, test } from 'vitest';

import { cacheOf, cacheText, commandsOf, commandsText, unshownSetup } from './setup';

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

test.each([
  ['npm ci && npm run build', '&&'],
  ['npm ci; make', ';'],
  ['make >out', '>'],
  ['echo $HOME', '$H'],
  ['sh -c "make" | tee log', '|'],
])('what only a shell understands is an error: %s', (text, operator) => {
  expect(() => commandsOf(text)).toThrow(`No shell runs “${text}”, which ${operator} needs`);
});

test('a backslash takes its meaning from the next character', () => {
  expect(commandsOf(String.raw`find . -exec rm {} \;` + '\n' + String.raw`echo a\ b \"c \$X`)).toEqual([
    ['find', '.', '-exec', 'rm', '{}', ';'],
    ['echo', 'a b', '"c', '$X'],
  ]);
});

test('commands survive the way through their text', () => {
  const commands = [
    ['npm', 'ci'],
    ['sh', '-c', `it's "quoted" \\ $X`],
    ['echo', `it's`],
    ['a', ''],
    ['sh', '-c', `cd lib\n\n  make 'all'\t"x"\n`],
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

test('values that no text stands for are named', () => {
  const shown = { setup: [['npm', 'ci']], setupTimeoutMs: 1, setupNetwork: 'none' as const, cache: null };
  expect(unshownSetup(shown)).toEqual({});
  expect(unshownSetup({ ...shown, setup: [], cache: [{ key: 'a', path: 'b:c' }] })).toEqual({
    setup: [],
    cache: [{ key: 'a', path: 'b:c' }],
  });
  expect(unshownSetup({ cache: [{ key: ' ', path: 'b' }] })).toEqual({ cache: [{ key: ' ', path: 'b' }] });
  expect(unshownSetup({ later: 1 } as object)).toEqual({ later: 1 });
});
