import { expect, test } from 'vitest';

import type { ConfiguredFile, FileOperation, FoundFile } from '../../api/models';
import { fileRows } from './files';

const configured = (fields: Partial<ConfiguredFile>): ConfiguredFile => ({
  provider: 'qwen',
  model: 'q',
  filename: 'a.gguf',
  url: 'https://h/a.gguf',
  sha256: null,
  downloaded: null,
  size: null,
  ...fields,
});
const found = (fields: Partial<FoundFile>): FoundFile => ({
  provider: 'qwen',
  filename: 'a.gguf',
  size: 10,
  complete: true,
  configured: true,
  ...fields,
});

test('configured and found files are one list', () => {
  const rows = fileRows(
    [configured({}), configured({ filename: 'b.gguf' })],
    [found({}), found({ filename: 'old.gguf', configured: false, size: 7 })],
    [],
  );
  expect(rows.map((row) => [row.filename, row.state, row.size, row.isConfigured])).toEqual([
    ['a.gguf', 'present', 10, true],
    ['b.gguf', 'missing', null, true],
    ['old.gguf', 'present', 7, false],
  ]);
});

test('an incomplete download is not present', () => {
  expect(fileRows([configured({})], [found({ complete: false })], [])[0]?.state).toBe('incomplete');
  expect(fileRows([configured({ downloaded: false, size: 5 })], undefined, [])[0]?.state).toBe('incomplete');
});

test('before a scan the state is unknown, and a model without a file has none', () => {
  expect(fileRows([configured({}), configured({ filename: null })], undefined, []).map((row) => row.state)).toEqual([
    'unknown',
    'none',
  ]);
});

test('a model of a provider on the internet needs no file', () => {
  expect(fileRows([configured({ provider: 'claude', filename: null })], undefined, [])).toEqual([]);
});

test('only an operation that has not ended belongs to the file', () => {
  const operation = { name: 'o', provider: 'qwen', filename: 'a.gguf', status: 'active' } as FileOperation;
  expect(fileRows([configured({})], [], [operation])[0]?.operation?.name).toBe('o');
  expect(fileRows([configured({})], [], [{ ...operation, status: 'completed' }])[0]?.operation).toBeUndefined();
});
