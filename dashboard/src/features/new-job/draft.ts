/** The form of a new job, and the submission that it stands for. */

import type { JobDetail, Rerun, Submission } from '../../api/jobs';
import { parseJson } from '../../lib/json';
import { networkRule, networkText } from '../../lib/network';
import { cacheOf, cacheText, commandsOf, commandsText } from '../../lib/setup';

/** All fields as texts, as the form holds them. */
export interface Draft {
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
  setup: string;
  setupNetwork: string;
  cache: string;
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
  prompt: '', type: 'task', agentRole: '', provider: '', model: '', effort: '', network: '', isolation: '', gitRepo: '', gitRef: '', gitDepth: '', setup: '', setupNetwork: '', cache: '', files: '', timeoutMinutes: '',
  maxTurns: '', maxCostUsd: '', maxTokens: '', maxAttempts: '', fallbackModel: '', priority: '', callbackUrl: '', resultSchema: '', metadata: '', report: '',
};

/** Fields of the API, by the field of the form that sets them. */
const FIELDS: Record<string, keyof Draft> = {
  prompt: 'prompt', type: 'type', agentRole: 'agentRole', priority: 'priority', callbackUrl: 'callbackUrl', resultSchema: 'resultSchema', metadata: 'metadata', report: 'report',
  'config.provider': 'provider', 'config.model': 'model', 'config.effort': 'effort', 'config.isolation': 'isolation', 'config.timeoutMs': 'timeoutMinutes', 'config.maxTurns': 'maxTurns',
  'config.maxCostUsd': 'maxCostUsd', 'config.maxTokens': 'maxTokens', 'config.maxAttempts': 'maxAttempts', 'config.fallbackModel': 'fallbackModel', 'config.network': 'network',
  'workspaceSetup.gitRepo': 'gitRepo', 'workspaceSetup.gitRef': 'gitRef', 'workspaceSetup.gitDepth': 'gitDepth', 'workspaceSetup.setup': 'setup',
  'workspaceSetup.setupNetwork': 'setupNetwork', 'workspaceSetup.cache': 'cache', workspaceUploads: 'files',
};

export type Problems = Partial<Record<keyof Draft, string | undefined>>;

/** The messages of an answer's details, by the field of the form. Others are listed without a field. */
export function problemsOf(details: readonly { field: string; message: string }[]): { fields: Problems; others: string[] } {
  const fields: Problems = {};
  const others: string[] = [];
  for (const { field, message } of details) {
    const own = FIELDS[field] ?? FIELDS[field.replace(/\[.*$/, '')] ?? FIELDS[field.split('.')[0] ?? ''];
    if (own) fields[own] = `${field.split('.').at(-1) ?? field}: ${message}`;
    else others.push(`${field}: ${message}`);
  }
  return { fields, others };
}

/** The submission of a form. Problems: values that are no numbers, or no JSON. */
export function submissionOf(draft: Draft): { submission: Submission; problems: Problems } {
  const problems: Problems = {};
  const number = (field: keyof Draft, factor = 1): number | undefined => {
    const text = draft[field].trim();
    if (text === '') return undefined;
    const value = Number(text) * factor;
    if (Number.isFinite(value)) return value;
    problems[field] = 'Must be a number.';
    return undefined;
  };
  const text = (field: keyof Draft): string | undefined => draft[field].trim() || undefined;
  const config = defined({
    provider: text('provider'), model: text('model'), effort: text('effort'), isolation: text('isolation'), timeoutMs: number('timeoutMinutes', 60_000), maxTurns: number('maxTurns'),
    maxCostUsd: number('maxCostUsd'), maxTokens: number('maxTokens'), maxAttempts: number('maxAttempts'), fallbackModel: text('fallbackModel'),
    network: networkRule(draft.network) ?? undefined,
  });
  const read = <Value>(field: keyof Draft, parse: (text: string) => Value[]): Value[] | undefined => {
    try {
      const values = parse(draft[field]);
      return values.length > 0 ? values : undefined;
    } catch (error) {
      problems[field] = (error as Error).message;
      return undefined;
    }
  };
  const workspaceSetup = defined({
    gitRepo: text('gitRepo'), gitRef: text('gitRef'), gitDepth: number('gitDepth'), setup: read('setup', commandsOf),
    setupNetwork: networkRule(draft.setupNetwork) ?? undefined, cache: read('cache', cacheOf),
  });
  const files = filesOf(draft.files);
  const object = (field: keyof Draft): unknown => {
    if (!text(field)) return undefined;
    const parsed = parseJson(draft[field]);
    if ('error' in parsed) problems[field] = parsed.error;
    else if (typeof parsed.value !== 'object' || parsed.value === null || Array.isArray(parsed.value)) problems[field] = 'Must be a JSON object.';
    else return parsed.value;
    return undefined;
  };
  if (!text('prompt')) problems.prompt = 'A prompt is required.';
  if (!text('type')) problems.type = 'A type is required.';
  const submission = defined({
    source: 'dashboard', type: text('type') ?? '', prompt: draft.prompt, agentRole: text('agentRole'), priority: number('priority'), callbackUrl: text('callbackUrl'),
    resultSchema: object('resultSchema'), metadata: object('metadata'),
    config: Object.keys(config).length > 0 ? config : undefined,
    workspaceSetup: Object.keys(workspaceSetup).length > 0 ? workspaceSetup : undefined,
    workspaceUploads: files.length > 0 ? files : undefined,
  });
  return { submission: submission as unknown as Submission, problems };
}

/** The uploaded files of a draft. */
export function filesOf(text: string): { id: string; name: string }[] {
  return text.split('\n').filter(Boolean).map((line) => ({ id: line.slice(0, line.indexOf('/')), name: line.slice(line.indexOf('/') + 1) }));
}

function defined(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** What a rerun changes, compared with the draft of the first job. Problems: see submissionOf. */
export function rerunOf(draft: Draft, first: Draft): { changes: Rerun; problems: Problems } {
  const { submission, problems } = submissionOf({ ...draft, prompt: draft.prompt || first.prompt || 'unchanged', type: draft.type || 'task' });
  const isChanged = (field: keyof Draft) => draft[field].trim() !== first[field].trim();
  for (const field of ['priority', 'metadata', ...Object.values(CONFIG_FIELDS)] as const) {
    if (isChanged(field) && draft[field].trim() === '') problems[field] ??= 'A rerun keeps the earlier value. Enter another one.';
  }
  const config = Object.fromEntries(Object.entries(submission.config ?? {}).filter(([name]) => isChanged(CONFIG_FIELDS[name] ?? 'prompt')));
  const changes = defined({
    prompt: isChanged('prompt') && draft.prompt.trim() ? draft.prompt : undefined,
    config: Object.keys(config).length > 0 ? config : undefined,
    priority: isChanged('priority') ? submission.priority : undefined,
    metadata: isChanged('metadata') ? submission.metadata : undefined,
    report: draft.report ? true : undefined,
  });
  return { changes, problems };
}

/** Fields of the form, by the setting that they change. */
const CONFIG_FIELDS: Record<string, keyof Draft> = Object.fromEntries(
  Object.entries(FIELDS).flatMap(([name, field]) => (name.startsWith('config.') ? [[name.slice('config.'.length), field]] : [])),
);

/** The draft of a job that runs again. Only settings that the earlier request set are repeated. prompt: empty if deleted. */
export function draftOf(job: JobDetail, prompt: string): Draft {
  const own = (name: string): boolean => job.configOrigins[name] === 'request';
  const { config, workspaceSetup: setup } = job;
  const set = (name: string, value: string | number | undefined): string => (own(name) && value !== undefined ? String(value) : '');
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
    setup: commandsText(setup?.setup ?? []),
    setupNetwork: setup?.setupNetwork ? networkText(setup.setupNetwork) : '',
    cache: cacheText(setup?.cache ?? []),
    priority: job.priority === 2 ? '' : String(job.priority),
    metadata: Object.keys(job.metadata).length > 0 ? JSON.stringify(job.metadata, null, 2) : '',
  };
}
