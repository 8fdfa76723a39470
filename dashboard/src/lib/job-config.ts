/** Settings of jobs, as triggers and webhook sources hold them: in a form, and in words. */

import { counted, span } from './format';
import { isSameJson } from './json';
import { networkRule, networkText, type NetworkRule } from './network';
import { MINUTE_MS } from './times';
import { variableDrafts, variablesOf, type VariableDraft, type Variables } from './variables';

/** Settings as the API takes them. Unset ones are absent. */
export type JobConfig = Record<string, unknown>;

/** Settings in a form. otherSettings: a JSON object with the settings that have no field, or that it cannot show. */
export interface ConfigDraft {
  provider: string;
  model: string;
  effort: string;
  timeoutMinutes: string;
  maxTurns: string;
  maxCostUsd: string;
  maxTokens: string;
  maxAttempts: string;
  fallbackModel: string;
  network: string;
  isolation: string;
  env: VariableDraft[];
  otherSettings: string;
}

export const CONFIG_LABELS: Record<keyof ConfigDraft, string> = {
  provider: 'Provider',
  model: 'Model',
  effort: 'Effort',
  timeoutMinutes: 'Time, minutes',
  maxTurns: 'Turns',
  maxCostUsd: 'Cost, US dollars',
  maxTokens: 'Tokens',
  maxAttempts: 'Attempts',
  fallbackModel: 'Fallback model',
  network: 'Network',
  isolation: 'Isolation, at least',
  env: 'Environment variables',
  otherSettings: 'Other settings',
};

const NUMBERS = ['maxTurns', 'maxCostUsd', 'maxTokens', 'maxAttempts'] as const;
const TEXTS = ['provider', 'model', 'effort', 'fallbackModel', 'isolation'] as const;
const STRUCTURES = ['network', 'env'] as const;

/** Fields of the form by the field of the API. prefix: the path of the settings in the body, such as `defaults`. */
export function configNames(prefix: string): Record<string, keyof ConfigDraft> {
  const own = [...TEXTS, ...NUMBERS, ...STRUCTURES].map((name) => [`${prefix}.${name}`, name] as const);
  return { ...Object.fromEntries(own), [`${prefix}.timeoutMs`]: 'timeoutMinutes', [prefix]: 'otherSettings' };
}

export function configDraft(config: JobConfig): ConfigDraft {
  const text = (name: string, divisor = 1) => {
    const value = config[name];
    return typeof value === 'number' ? String(value / divisor) : typeof value === 'string' ? value : '';
  };
  const network = shown(config['network'] as NetworkRule | null, networkText, networkRule);
  const env = shown(config['env'] as Variables | null, variableDrafts, variablesOf);
  const named = new Set<string>([...NUMBERS, ...TEXTS, 'timeoutMs']);
  if (network !== undefined) named.add('network');
  if (env !== undefined) named.add('env');
  const others = Object.entries(config).filter(([name, value]) => !named.has(name) && value !== null);
  return {
    provider: text('provider'),
    model: text('model'),
    effort: text('effort'),
    timeoutMinutes: text('timeoutMs', MINUTE_MS),
    maxTurns: text('maxTurns'),
    maxCostUsd: text('maxCostUsd'),
    maxTokens: text('maxTokens'),
    maxAttempts: text('maxAttempts'),
    fallbackModel: text('fallbackModel'),
    network: network ?? '',
    isolation: text('isolation'),
    env: env ?? [],
    otherSettings: others.length > 0 ? JSON.stringify(Object.fromEntries(others), null, 2) : '',
  };
}

/** A value as its field shows it; undefined without a value, or if the field would stand for another one. */
function shown<Value, Draft>(
  value: Value | null | undefined,
  show: (value: Value) => Draft,
  read: (draft: Draft) => unknown,
): Draft | undefined {
  if (value === null || value === undefined) return undefined;
  try {
    const draft = show(value);
    return isSameJson(read(draft), value) ? draft : undefined;
  } catch {
    return undefined;
  }
}

interface Reader {
  text: (field: keyof ConfigDraft) => string | null;
  number: (field: keyof ConfigDraft) => number | null;
  /** A number of minutes as milliseconds. */
  minutes: (field: keyof ConfigDraft) => number | null;
  json: (field: keyof ConfigDraft) => Record<string, unknown> | null;
  variables: (field: keyof ConfigDraft) => Variables | null;
}

/** The settings of a draft. read: converts its texts, and notes those that are invalid. */
export function configOf(read: Reader): JobConfig {
  const settings: JobConfig = { ...read.json('otherSettings') };
  const values = [
    ...TEXTS.map((name) => [name, read.text(name)] as const),
    ...NUMBERS.map((name) => [name, read.number(name)] as const),
    ['timeoutMs', read.minutes('timeoutMinutes')] as const,
    ['network', networkRule(read.text('network') ?? '')] as const,
    ['env', read.variables('env')] as const,
  ];
  for (const [name, value] of values) if (value !== null) settings[name] = value;
  return settings;
}

/** Settings in words: "claude/opus, high effort, 20 minutes". Empty without settings. */
export function configInWords(config: JobConfig): string {
  const draft = configDraft(config);
  const model = [draft.provider, draft.model].filter(Boolean).join('/');
  const parts = [
    model,
    draft.effort && `${draft.effort} effort`,
    typeof config['timeoutMs'] === 'number' && span(config['timeoutMs']),
    numberOf(config, 'maxTurns', 'turn'),
    draft.maxCostUsd && `at most $${draft.maxCostUsd}`,
    draft.maxTokens && `at most ${numberOf(config, 'maxTokens', 'token')}`,
    numberOf(config, 'maxAttempts', 'attempt'),
    draft.fallbackModel && `or ${draft.fallbackModel}`,
    draft.network && `network ${draft.network.replaceAll(', ', ' and ')}`,
    draft.isolation && `at least ${draft.isolation}`,
    draft.env.length > 0 && counted(draft.env.length, 'variable'),
    ...Object.keys(config).filter((name) => isOther(config, name)),
  ];
  return parts.filter(Boolean).join(', ');
}

function numberOf(config: JobConfig, name: string, noun: string): string {
  const value = config[name];
  return typeof value === 'number' ? counted(value, noun) : '';
}

function isOther(config: JobConfig, name: string): boolean {
  return !isSameJson(configDraft({ [name]: config[name] }).otherSettings, '');
}
