import { readFileSync } from 'node:fs';

import { expect, test } from 'vitest';

import { codeAdvice, codeMeaning } from './failures';

const UNKNOWN = 'toString';

/** The codes of the API, as its generated types list them. */
const CODES =
  /^ {8}FailedCode: (.+);$/m
    .exec(readFileSync(new URL('../api/schema.d.ts', import.meta.url), 'utf8'))?.[1]
    ?.split(' | ')
    .map((code) => code.slice(1, -1)) ?? [];

test('the API has codes of failures', () => {
  expect(CODES).toContain('rate_limited');
});

test.each(CODES)('%s has a meaning of its own and an advice, each a sentence', (code) => {
  for (const text of [codeMeaning(code), codeAdvice(code, null)]) expect(text).toMatch(/^[A-Z][^.]*\.$/);
  expect(codeMeaning(code)).not.toBe(codeMeaning(UNKNOWN));
});

test.each([
  ["the credentials of AiModel opus are missing: there is no Secret 'claude-key'", 'not stored', 'Store them'],
  ["config.env.NPM_TOKEN: the Secret 'npm' has no key 'token'", 'not stored', 'Store them'],
  ["Claude Code has no credentials for the provider 'claude' with the model 'opus': …", 'not stored', 'Store them'],
  [
    'an external contributor caused this job, so it does not get the secret in config.env.A',
    'gets no secrets',
    'no MCP',
  ],
  ["config.env.A names the model's key KEY in 'claude-key', which no agent gets", 'no agent gets', 'another Secret'],
  ["invalid x-api-key (check the credentials that the AiModel's credentialsRef names)", 'refused', 'of the model'],
  ["the Secret 'npm' belongs to another object", 'missing or were refused', 'Check them'],
])('the advice for the code auth fits: %s', (reason, meaning, advice) => {
  expect(codeMeaning('auth', reason)).toContain(meaning);
  expect(codeAdvice('auth', reason)).toContain(advice);
});

test.each([
  [
    'Claude Code is not installed: run `npm install -g @anthropic-ai/claude-code`, or set LABRATS_CLAUDE_PATH',
    'program of the provider is missing',
  ],
  ['LABRATS_CODEX_PATH is /opt/codex, which is no program', 'program of the provider is missing'],
  ['no server is set for qwen/coder, for the provider', 'no server of this model'],
])('the advice for the code invalid names the command: %s', (reason, meaning) => {
  expect(codeMeaning('invalid', reason)).toContain(meaning);
  expect(codeAdvice('invalid', reason)).toContain('Run the command');
});

test('an unknown code has a general sentence', () => {
  expect(codeMeaning(UNKNOWN)).toBe('The job failed.');
});
