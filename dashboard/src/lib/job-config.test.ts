import { expect, test } from 'vitest';

import { Texts } from '../ui/use-form';
import { configDraft, configInWords, configNames, configOf } from './job-config';

const CONFIG = {
  provider: 'claude',
  model: 'opus',
  effort: 'high',
  timeoutMs: 90_000,
  maxTurns: 5,
  fast: true,
  mcpServers: { a: { command: 'x' } },
  network: { allow: ['npm', '*.example.com'] },
  isolation: 'sandbox',
  env: { CI: '1', NPM_TOKEN: { secret: 'npm', key: 'token' } },
};

test('a form that is not changed stands for the same settings', () => {
  expect(configOf(new Texts(configDraft(CONFIG)))).toEqual(CONFIG);
  expect(configOf(new Texts(configDraft({})))).toEqual({});
});

test.each([
  { network: { allow: [] } },
  { network: { allow: ['none'] } },
  { network: { allow: ['a, b'] } },
  { network: { deny: ['a'] } },
  { env: {} },
  { env: { A: { file: 'x' } } },
  { env: ['A'] },
])('the settings %j survive a form that changes others', (config) => {
  const draft = { ...configDraft(config), model: 'opus' };
  expect(configOf(new Texts(draft))).toEqual({ ...config, model: 'opus' });
});

test('network, isolation and variables have their own fields', () => {
  expect(configDraft(CONFIG)).toMatchObject({ network: 'npm, *.example.com', isolation: 'sandbox' });
  expect(configDraft(CONFIG).env.map((each) => each.name)).toEqual(['CI', 'NPM_TOKEN']);
  expect(JSON.parse(configDraft(CONFIG).otherSettings)).toEqual({ fast: true, mcpServers: CONFIG.mcpServers });
});

test('invalid texts are problems of their field', () => {
  const texts = new Texts({ ...configDraft({}), maxTurns: 'many', otherSettings: '[]' });
  configOf(texts);
  expect(texts.problems).toEqual({ maxTurns: 'must be a number', otherSettings: 'must be a JSON object' });
});

test('settings are readable', () => {
  expect(configInWords(CONFIG)).toBe(
    'claude/opus, high effort, 90 seconds, 5 turns, network npm and *.example.com, at least sandbox, 2 variables, fast, mcpServers',
  );
  expect(configInWords({ timeoutMs: 60_000, maxTurns: 1, maxAttempts: 1, maxTokens: 1_000 })).toBe(
    '1 minute, 1 turn, at most 1,000 tokens, 1 attempt',
  );
  expect(configInWords({})).toBe('');
});

test('fields of the API have a field of the form', () => {
  expect(configNames('defaults')).toMatchObject({
    'defaults.timeoutMs': 'timeoutMinutes',
    'defaults.model': 'model',
    'defaults.network': 'network',
    'defaults.env': 'env',
    defaults: 'otherSettings',
  });
});
