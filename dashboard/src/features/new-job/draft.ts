/** The form of a new job, and the submission that it stands for. */

import type { JobDetail } from '../../api/jobs';
import { isSameJson } from '../../lib/json';
import { networkRule, networkText } from '../../lib/network';
import { EMPTY_SETUP, SETUP_NAMES, setupDraft, setupOf, type SetupDraft } from '../../lib/setup';
import { variableDrafts, type VariableDraft } from '../../lib/variables';
import { Texts, type Body, type Problems } from '../../ui/use-form';

/** All fields as the form holds them. */
export interface Draft extends SetupDraft {
  prompt: string;
  type: string;
  agentRole: string;
  provider: string;
  model: string;
  effort: string;
  network: string;
  isolation: string;
  gitRepo: string;
  gitRef: string;
  gitDepth: string;
  env: VariableDraft[];
  /** Uploaded files, one a line: their id and name, as `id/name`. */
  files: string;
  timeoutMinutes: string;
  maxTurns: string;
  maxCostUsd: string;
  maxTokens: string;
  maxAttempts: string;
  fallbackModel: string;
  priority: string;
  callbackUrl: string;
  resultSchema: string;
  metadata: string;
  /** Not empty: a rerun reports to GitHub where the first job did. */
  report: string;
}

export const EMPTY_DRAFT: Draft = {
  prompt: '',
  type: 'task',
  agentRole: '',
  provider: '',
  model: '',
  effort: '',
  network: '',
  isolation: '',
  gitRepo: '',
  gitRef: '',
  gitDepth: '',
  ...EMPTY_SETUP,
  env: [],
  files: '',
  timeoutMinutes: '',
  maxTurns: '',
  maxCostUsd: '',
  maxTokens: '',
  maxAttempts: '',
  fallbackModel: '',
  priority: '',
  callbackUrl: '',
  resultSchema: '',
  metadata: '',
  report: '',
};

/** Fields of the form by the field of the API, where the names differ. */
export const NAMES: Record<string, keyof Draft> = {
  'config.provider': 'provider',
  'config.model': 'model',
  'config.effort': 'effort',
  'config.isolation': 'isolation',
  'config.timeoutMs': 'timeoutMinutes',
  'config.maxTurns': 'maxTurns',
  'config.maxCostUsd': 'maxCostUsd',
  'config.maxTokens': 'maxTokens',
  'config.maxAttempts': 'maxAttempts',
  'config.fallbackModel': 'fallbackModel',
  'config.network': 'network',
  'config.env': 'env',
  'workspaceSetup.gitRepo': 'gitRepo',
  'workspaceSetup.gitRef': 'gitRef',
  'workspaceSetup.gitDepth': 'gitDepth',
  ...SETUP_NAMES,
  workspaceUploads: 'files',
};

/** The submission of a form, and the problems of its values. */
export function submissionOf(draft: Draft): { body: Body; problems: Problems<Draft> } {
  const texts = new Texts(draft);
  const files = filesOf(draft.files);
  const body = set({
    source: 'dashboard',
    type: texts.required('type'),
    prompt: texts.required('prompt') && draft.prompt,
    agentRole: texts.text('agentRole'),
    priority: texts.number('priority'),
    callbackUrl: texts.text('callbackUrl'),
    resultSchema: texts.json('resultSchema'),
    metadata: texts.json('metadata'),
    config: group({
      provider: texts.text('provider'),
      model: texts.text('model'),
      effort: texts.text('effort'),
      isolation: texts.text('isolation'),
      network: networkRule(draft.network),
      timeoutMs: texts.minutes('timeoutMinutes'),
      maxTurns: texts.number('maxTurns'),
      maxCostUsd: texts.number('maxCostUsd'),
      maxTokens: texts.number('maxTokens'),
      maxAttempts: texts.number('maxAttempts'),
      fallbackModel: texts.text('fallbackModel'),
      env: texts.variables('env'),
    }),
    workspaceSetup: group({
      gitRepo: texts.text('gitRepo'),
      gitRef: texts.text('gitRef'),
      gitDepth: texts.number('gitDepth'),
      ...setupOf(draft, texts),
    }),
    workspaceUploads: files.length > 0 ? files : null,
  });
  return { body, problems: texts.problems };
}

/** The uploaded files of a draft. */
export function filesOf(text: string): { id: string; name: string }[] {
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => ({ id: line.slice(0, line.indexOf('/')), name: line.slice(line.indexOf('/') + 1) }));
}

/** The fields that have a value. */
function set(fields: Body): Body {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}

/** The fields that have a value; null without any. */
function group(fields: Body): Body | null {
  const values = set(fields);
  return Object.keys(values).length > 0 ? values : null;
}

/** What a rerun changes, compared with the draft of the first job, and the problems of the values. */
export function rerunOf(draft: Draft, first: Draft): { body: Body; problems: Problems<Draft> } {
  const { body, problems } = submissionOf({
    ...draft,
    prompt: draft.prompt || first.prompt || 'unchanged',
    type: draft.type || 'task',
  });
  const isChanged = (field: keyof Draft) => !isSameJson(trimmed(draft[field]), trimmed(first[field]));
  for (const field of ['priority', 'metadata', ...Object.values(CONFIG_FIELDS)] as const) {
    if (isChanged(field) && trimmed(draft[field]) === '')
      problems[field] ??= 'A rerun keeps the earlier value. Enter another one.';
  }
  const config: Body = { env: {}, ...(body.config ?? {}) }; // without rows, the new job has no variables
  const changed = (field: keyof Draft) => (isChanged(field) ? (body[field] ?? null) : null);
  return {
    problems,
    body: set({
      prompt: isChanged('prompt') && draft.prompt.trim() ? draft.prompt : null,
      config: group(
        Object.fromEntries(Object.entries(config).filter(([name]) => isChanged(CONFIG_FIELDS[name] ?? 'prompt'))),
      ),
      priority: changed('priority'),
      metadata: changed('metadata'),
      report: draft.report ? true : null,
    }),
  };
}

function trimmed(value: Draft[keyof Draft]): unknown {
  if (typeof value === 'string') return value.trim();
  return value.filter(({ name, value: text, secret, key }) => `${name}${text}${secret}${key}`.trim() !== '');
}

/** Fields of the form, by the setting that they change. */
const CONFIG_FIELDS: Record<string, keyof Draft> = Object.fromEntries(
  Object.entries(NAMES).flatMap(([name, field]) =>
    name.startsWith('config.') ? [[name.slice('config.'.length), field]] : [],
  ),
);

/**
 * The draft of a job that runs again. Only settings that the earlier request set are repeated. prompt: empty if
 * deleted.
 */
export function draftOf(job: JobDetail, prompt: string): Draft {
  const own = (name: string): boolean => job.configOrigins[name] === 'request';
  const { config, workspaceSetup: setup } = job;
  const set = (name: string, value: string | number | undefined): string =>
    own(name) && value !== undefined ? String(value) : '';
  return {
    ...EMPTY_DRAFT,
    prompt,
    type: job.name,
    agentRole: job.agentRole ?? '',
    provider: set('provider', config.provider),
    model: set('model', config.model),
    effort: set('effort', config.effort),
    network: config.network ? set('network', networkText(config.network)) : '',
    isolation: set('isolation', config.isolation),
    timeoutMinutes: set('timeoutMs', config.timeoutMs / 60_000),
    maxTurns: set('maxTurns', config.maxTurns),
    maxCostUsd: set('maxCostUsd', config.maxCostUsd),
    maxTokens: set('maxTokens', config.maxTokens),
    maxAttempts: set('maxAttempts', config.maxAttempts),
    fallbackModel: set('fallbackModel', config.fallbackModel),
    gitRepo: setup?.gitRepo ?? '',
    gitRef: setup?.gitRef ?? '',
    gitDepth: setup?.gitDepth ? String(setup.gitDepth) : '',
    ...setupDraft(setup ?? {}),
    env: own('env') ? variableDrafts(config.env) : [],
    priority: job.priority === 2 ? '' : String(job.priority),
    metadata: Object.keys(job.metadata).length > 0 ? JSON.stringify(job.metadata, null, 2) : '',
  };
}
