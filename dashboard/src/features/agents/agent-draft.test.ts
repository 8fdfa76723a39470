import { expect, test } from 'vitest';

import type { Agent } from '../../api/agents';
import { problemsByField } from '../../ui/use-form';
import { AGENT_NAMES, agentBody, agentDraft, EMPTY_AGENT, newAgentBody } from './agent-draft';

const agent = {
  triggerName: 'developer',
  defaultProvider: 'claude',
  defaultModel: null,
  defaultEffort: null,
  defaultNetwork: { allow: ['npm'] },
  defaultIsolation: 'vm',
  mcpServers: { docs: { url: 'https://mcp.example.com' } },
  env: { CI: '1', NPM_TOKEN: { secret: 'npm', key: 'token' } },
  workspaceSetup: {
    setup: [['sh', '-c', 'npm ci &&\n  make']],
    setupTimeoutMs: 90_000,
    setupNetwork: { allow: ['npm', 'github'] },
    cache: [{ key: 'package-lock.json', path: 'node_modules' }],
  },
  resultSchema: { type: 'object' },
  report: { comment: 'final' },
} as unknown as Agent;

test('a form that is not changed stands for the same agent', () => {
  expect(agentBody(agentDraft(agent))).toEqual({ body: agent, problems: {} });
  expect(agentDraft(agent)).toMatchObject({ setupMinutes: '1.5', setupNetwork: 'npm, github', otherSetup: '' });
});

test('what the fields of the setup cannot show survives changes of others', () => {
  const workspaceSetup = { setup: [['make']], cache: [{ key: 'a', path: 'b: c' }] };
  const draft = agentDraft({ ...agent, workspaceSetup });
  expect([draft.cache, JSON.parse(draft.otherSetup)]).toEqual(['', { cache: workspaceSetup.cache }]);
  expect(agentBody({ ...draft, setupMinutes: '1' }).body['workspaceSetup']).toEqual({
    ...workspaceSetup,
    setupTimeoutMs: 60_000,
  });
});

test('empty fields remove the rule, the level, the variables and the setup', () => {
  const draft = { ...agentDraft(agent), ...EMPTY_AGENT, triggerName: 'developer' };
  expect(agentBody(draft).body).toMatchObject({
    defaultNetwork: null,
    defaultIsolation: null,
    env: null,
    workspaceSetup: null,
  });
  expect(newAgentBody({ ...EMPTY_AGENT, name: 'a' }).problems).toEqual({});
});

test('problems of the API belong to the field that sets the value', () => {
  const details = [
    { field: 'workspaceSetup.setup[0][1]', message: 'is too long' },
    { field: 'workspaceSetup.cache[0].path', message: 'must be a relative path' },
    { field: 'workspaceSetup', message: 'is bad' },
    { field: 'env', message: 'HOME is set by the engine' },
  ];
  expect(problemsByField(details, EMPTY_AGENT, AGENT_NAMES)).toEqual({
    fields: {
      setup: '[0][1]: is too long',
      cache: '[0].path: must be a relative path',
      otherSetup: 'is bad',
      env: 'HOME is set by the engine',
    },
    others: [],
  });
});
