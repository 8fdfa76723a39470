import { expect, test } from 'vitest';

import type { WebhookSource } from '../../api/sources';
import { newSecret, sourceBody, sourceDraft } from './source-draft';

const source = {
  type: 'github',
  host: null,
  path: null,
  ingressClassName: null,
  tlsSecretName: null,
  credentialsRef: 'app',
  allowForks: false,
  allowedAssociations: ['OWNER', 'MEMBER'],
  defaults: { effort: 'high', timeoutMs: 60_000, network: { allow: ['npm'] }, env: { CI: '1' } },
  repoOverrides: {
    'o/r': {
      enabled: false,
      model: 'opus',
      effort: null,
      provider: null,
      agentTriggerName: 'ai-developer',
      report: { comment: 'final' },
    },
  },
  report: { pullRequest: { followUps: false, signCommits: true } },
} as unknown as WebhookSource;

test('a form that is not changed stands for the same source', () => {
  expect(sourceBody(sourceDraft(source))).toEqual({ body: source, problems: {} });
});

test('a repository occurs once, and an empty one is left out', () => {
  const draft = sourceDraft(source);
  const [override] = draft.overrides;
  if (!override) throw new Error('no override');
  expect(
    sourceBody({ ...draft, overrides: [...draft.overrides, { ...override, repo: ' o/r' }] }).problems.overrides,
  ).toBe('o/r occurs twice');
  expect(sourceBody({ ...draft, overrides: [{ ...override, repo: ' ' }] }).body['repoOverrides']).toEqual({});
});

test('two secrets differ, and are long', () => {
  expect(newSecret()).toMatch(/^[0-9a-f]{48}$/);
  expect(newSecret()).not.toBe(newSecret());
});
