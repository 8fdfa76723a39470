import { expect, test } from 'vitest';

import type { JobDetail } from '../../api/jobs';
import { NEW_VARIABLE, variableDrafts } from '../../lib/variables';
import { problemsByField } from '../../ui/use-form';
import { draftOf, EMPTY_DRAFT, filesOf, NAMES, rerunOf, submissionOf } from './draft';

test('an empty form asks for a prompt only', () => {
  expect(submissionOf(EMPTY_DRAFT).problems).toEqual({ prompt: 'is required' });
});

test('only fields with a value are sent', () => {
  expect(submissionOf({ ...EMPTY_DRAFT, prompt: 'Fix it.' }).body).toEqual({
    source: 'dashboard',
    type: 'task',
    prompt: 'Fix it.',
  });
});

test('numbers, the repository and metadata have the form of the API', () => {
  const draft = {
    ...EMPTY_DRAFT,
    prompt: 'x',
    model: ' opus ',
    timeoutMinutes: '1.5',
    gitRepo: 'https://example.com/r.git',
    priority: '0',
    metadata: '{"a": 1}',
  };
  expect(submissionOf(draft)).toEqual({
    problems: {},
    body: {
      source: 'dashboard',
      type: 'task',
      prompt: 'x',
      priority: 0,
      metadata: { a: 1 },
      config: { model: 'opus', timeoutMs: 90_000 },
      workspaceSetup: { gitRepo: 'https://example.com/r.git' },
    },
  });
});

test('what is no number or no object is a problem of its field', () => {
  expect(submissionOf({ ...EMPTY_DRAFT, prompt: 'x', maxTurns: 'many', metadata: '[1]' }).problems).toEqual({
    maxTurns: 'must be a number',
    metadata: 'must be a JSON object',
  });
});

test('setup commands, their network and caches are texts in the form', () => {
  const setup = {
    gitRepo: 'https://example.com/r.git',
    setup: [['npm', 'ci']],
    setupTimeoutMs: 90_000,
    setupNetwork: { allow: ['npm'] },
    cache: [{ key: 'package-lock.json', path: 'node_modules' }],
  };
  const draft = {
    ...EMPTY_DRAFT,
    prompt: 'x',
    gitRepo: setup.gitRepo,
    network: 'none',
    setup: 'npm ci',
    setupMinutes: '1.5',
    setupNetwork: 'npm',
    cache: 'package-lock.json: node_modules',
  };
  expect(submissionOf(draft).body).toMatchObject({ config: { network: 'none' }, workspaceSetup: setup });
  expect(submissionOf({ ...draft, setup: "sh -c 'x", cache: 'x' }).problems).toEqual({
    setup: expect.stringContaining('quotes') as string,
    cache: expect.stringContaining('folder') as string,
  });
  expect(
    problemsByField([{ field: 'workspaceSetup.setup[0][1]', message: 'too long' }], EMPTY_DRAFT, NAMES).fields.setup,
  ).toContain('too long');
  const job = { metadata: {}, config: {}, configOrigins: {}, workspaceSetup: setup } as unknown as JobDetail;
  expect(draftOf(job, '')).toMatchObject({
    setup: draft.setup,
    setupMinutes: '1.5',
    setupNetwork: 'npm',
    cache: draft.cache,
  });
  expect(submissionOf({ ...draft, setupMinutes: '1441' }).problems.setupMinutes).toContain('at most 1,440 minutes');
});

test('environment variables are texts and values of Secrets', () => {
  const env = { CI: '1', NPM_TOKEN: { secret: 'npm', key: 'token' } };
  const draft = { ...EMPTY_DRAFT, prompt: 'x', env: variableDrafts(env) };
  expect(submissionOf(draft).body).toMatchObject({ config: { env } });
  expect(submissionOf({ ...draft, env: [...draft.env, ...draft.env] }).problems.env).toBe('CI occurs twice.');
  expect(
    problemsByField([{ field: 'config.env.NPM_TOKEN.key', message: 'is bad' }], EMPTY_DRAFT, NAMES).fields.env,
  ).toBe('NPM_TOKEN.key: is bad');
});

test('a rerun replaces the variables of the request, or removes them', () => {
  const job = { metadata: {}, config: { env: { CI: '1' } }, configOrigins: { env: 'request' } } as unknown as JobDetail;
  const first = draftOf(job, '');
  expect(rerunOf(first, first).body).toEqual({});
  expect(rerunOf({ ...first, env: [...first.env, NEW_VARIABLE] }, first).body).toEqual({});
  expect(rerunOf({ ...first, env: variableDrafts({ CI: '2' }) }, first).body).toEqual({ config: { env: { CI: '2' } } });
  expect(rerunOf({ ...first, env: [] }, first).body).toEqual({ config: { env: {} } });
  expect(draftOf({ ...job, configOrigins: { env: 'agent' } }, '').env).toEqual([]);
});

test('a result schema is a JSON object', () => {
  const draft = { ...EMPTY_DRAFT, prompt: 'x', resultSchema: '{"type": "object"}' };
  expect(submissionOf(draft)).toMatchObject({ problems: {}, body: { resultSchema: { type: 'object' } } });
  expect(submissionOf({ ...draft, resultSchema: 'true' }).problems).toEqual({ resultSchema: 'must be a JSON object' });
  expect(
    problemsByField([{ field: 'resultSchema', message: 'type must be a name' }], EMPTY_DRAFT, NAMES).fields
      .resultSchema,
  ).toContain('type must be a name');
});

test('problems of the API belong to the field that sets the value', () => {
  expect(
    problemsByField(
      [
        { field: 'config.timeoutMs', message: 'too long' },
        { field: 'metadata.mock.steps', message: 'unknown step' },
        { field: 'source', message: 'bad' },
      ],
      EMPTY_DRAFT,
      NAMES,
    ),
  ).toEqual({
    fields: { timeoutMinutes: 'too long', metadata: 'mock.steps: unknown step' },
    others: ['source: bad'],
  });
});

test('a rerun repeats what the request set, and leaves the rest to the layers', () => {
  const job = {
    name: 'code-review',
    agentRole: 'ai-reviewer',
    priority: 2,
    metadata: { repo: 'o/r' },
    workspaceSetup: { gitRepo: 'https://example.com/r.git', gitRef: 'main', gitDepth: null },
    config: {
      provider: 'claude',
      model: 'opus',
      effort: 'high',
      timeoutMs: 60_000,
      maxTurns: 25,
      maxAttempts: 1,
      fast: false,
    },
    configOrigins: { provider: 'request', model: 'agent', timeoutMs: 'request' },
  } as unknown as JobDetail;
  expect(draftOf(job, 'Do it.')).toMatchObject({
    type: 'code-review',
    agentRole: 'ai-reviewer',
    provider: 'claude',
    model: '',
    effort: '',
    timeoutMinutes: '1',
    gitRef: 'main',
    priority: '',
    prompt: 'Do it.',
  });
});

const FIRST = {
  ...EMPTY_DRAFT,
  prompt: 'Do it.',
  type: 'code-review',
  provider: 'claude',
  timeoutMinutes: '1',
  priority: '3',
  metadata: '{"repo": "o/r"}',
};

test('a rerun sends only what has changed', () => {
  expect(rerunOf(FIRST, FIRST)).toEqual({ body: {}, problems: {} });
  expect(rerunOf({ ...FIRST, model: 'haiku', effort: 'low', timeoutMinutes: '2', priority: '0' }, FIRST)).toEqual({
    body: { config: { model: 'haiku', effort: 'low', timeoutMs: 120_000 }, priority: 0 },
    problems: {},
  });
  expect(rerunOf({ ...FIRST, prompt: 'Do it well.', metadata: '{}' }, FIRST).body).toEqual({
    prompt: 'Do it well.',
    metadata: {},
  });
  expect(rerunOf({ ...FIRST, report: 'again' }, FIRST).body).toEqual({ report: true });
});

test('a rerun keeps a prompt that is not entered, and cannot unset a value', () => {
  expect(rerunOf({ ...FIRST, prompt: '' }, FIRST)).toEqual({ body: {}, problems: {} });
  expect(Object.keys(rerunOf({ ...FIRST, provider: '', maxTurns: 'many' }, FIRST).problems)).toEqual([
    'maxTurns',
    'provider',
  ]);
});

test('files are chosen by id, and keep their names', () => {
  expect(filesOf('')).toEqual([]);
  expect(submissionOf({ ...EMPTY_DRAFT, prompt: 'x', files: 'ab12/notes.txt\ncd34/a b.md' }).body).toMatchObject({
    workspaceUploads: [
      { id: 'ab12', name: 'notes.txt' },
      { id: 'cd34', name: 'a b.md' },
    ],
  });
});
