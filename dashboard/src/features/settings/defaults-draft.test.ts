import { expect, test } from 'vitest';

import type { Defaults } from '../../api/config';
import { changedFields } from '../../lib/merge';
import { DEFAULTS_NAMES, defaultsBody, defaultsDraft } from './defaults-draft';

const defaults: Defaults = {
  model: 'sonnet',
  effort: null,
  executorImage: null,
  executorResources: { limits: { cpu: '2' } },
  resourceVersion: '1',
  providers: {
    claude: { model: 'opus', effort: 'high' },
    qwen: { files: [{ filename: 'a.gguf', url: 'https://h/a.gguf' }] },
  },
};

test('only changed settings are sent', () => {
  const draft = defaultsDraft(defaults);
  const before = defaultsBody(draft).body;
  expect(changedFields(before, defaultsBody({ ...draft, effort: 'low' }).body)).toEqual({ effort: 'low' });
});

test('a provider without settings is removed, and a cleared setting is null', () => {
  const { body } = defaultsBody({
    ...defaultsDraft(defaults),
    'claude.model': '',
    'claude.effort': '',
    'limits.cpu': '',
  });
  expect(body['providers']).toMatchObject({
    claude: null,
    qwen: { model: null, effort: null, files: [{ filename: 'a.gguf', url: 'https://h/a.gguf' }] },
  });
  expect(body['executorResources']).toMatchObject({ limits: { cpu: null, memory: null } });
});

test('files must be a list, and their problems have a field', () => {
  expect(defaultsBody({ ...defaultsDraft(defaults), 'qwen.files': '{}' }).problems).toEqual({
    'qwen.files': 'must be a JSON list',
  });
  expect(DEFAULTS_NAMES['providers.qwen.files']).toBe('qwen.files');
});
