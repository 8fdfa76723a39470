import { afterEach, expect, test, vi } from 'vitest';

import { readStored, readStoredJson, writeStored } from './storage';

function aStorage(space: number) {
  const texts = new Map<string, string>();
  return {
    getItem: (name: string) => texts.get(name) ?? null,
    removeItem: (name: string) => texts.delete(name),
    setItem: (name: string, text: string) => {
      if (text.length > space) throw new Error('QuotaExceededError');
      texts.set(name, text);
    },
  };
}

afterEach(() => vi.unstubAllGlobals());

test('a text is stored until it is removed', () => {
  vi.stubGlobal('window', { sessionStorage: aStorage(100) });
  writeStored('sessionStorage', 'draft', '{"a": 1}');
  expect(readStoredJson('sessionStorage', 'draft')).toEqual({ a: 1 });
  writeStored('sessionStorage', 'draft', undefined);
  expect(readStored('sessionStorage', 'draft')).toBeNull();
  expect(readStoredJson('sessionStorage', 'draft')).toBeUndefined();
});

test('a text without space fails nothing, and leaves no earlier one', () => {
  vi.stubGlobal('window', { sessionStorage: aStorage(10) });
  writeStored('sessionStorage', 'draft', 'short');
  writeStored('sessionStorage', 'draft', 'too long for it');
  expect(readStored('sessionStorage', 'draft')).toBeNull();
});

test('a browser that refuses storage fails nothing', () => {
  vi.stubGlobal('window', {
    get localStorage() {
      throw new Error('SecurityError');
    },
  });
  writeStored('localStorage', 'theme', 'dark');
  expect(readStored('localStorage', 'theme')).toBeNull();
});
