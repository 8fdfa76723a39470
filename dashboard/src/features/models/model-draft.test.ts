import { expect, test } from 'vitest';

import type { AiModel } from '../../api/models';
import { EMPTY_MODEL, modelBody, modelDraft } from './model-draft';

test('a model without prices has no prices, so that its cost is unknown rather than zero', () => {
  expect(modelBody({ ...EMPTY_MODEL, name: 'a', model: 'opus' })).toEqual({
    problems: {},
    body: {
      name: 'a',
      provider: 'claude',
      model: 'opus',
      slots: 4,
      endpoint: null,
      credentialsRef: null,
      prices: null,
      sampling: null,
      command: null,
      environment: null,
    },
  });
});

test('one price makes the others zero', () => {
  expect(modelBody({ ...EMPTY_MODEL, name: 'a', model: 'opus', priceOutput: '25' }).body['prices']).toEqual({
    input: 0,
    output: 25,
    cacheRead: null,
    cacheWrite: null,
  });
});

test('a name and a model are required, and slots are a whole number', () => {
  expect(modelBody({ ...EMPTY_MODEL, slots: '1.5' }).problems).toEqual({
    name: 'is required',
    model: 'is required',
    slots: 'must be a whole number',
  });
});

test('a form of a model that is not changed stands for the same model', () => {
  const view = {
    name: 'a',
    provider: 'qwen',
    model: 'q',
    slots: 0,
    endpoint: 'http://h',
    credentialsRef: 's',
    prices: { input: 1, output: 2, cacheRead: 0.1, cacheWrite: null },
    sampling: { temperature: 0 },
    command: null,
    environment: null,
  } as unknown as AiModel;
  expect(modelBody(modelDraft(view)).body).toEqual(view);
});

test('a command is written as its words, and as JSON if a word has a space', () => {
  const view = { name: 'a', provider: 'acp', model: 'q', slots: 1, environment: { A: '{url}' } };
  for (const command of [
    ['opencode', 'acp'],
    ['sh', '-c', 'exec agent'],
  ]) {
    const draft = modelDraft({ ...view, command } as unknown as AiModel);
    expect(modelBody(draft).body['command']).toEqual(command);
  }
  expect(modelDraft({ ...view, command: ['opencode', 'acp'] } as unknown as AiModel).command).toBe('opencode acp');
});
