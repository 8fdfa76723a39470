/** The form of the default settings. */

import { LOCAL_PROVIDERS, PROVIDERS, type Defaults, type Provider } from '../../api/config';
import { Texts, type Body, type Problems } from '../../ui/use-form';

type ProviderField = `${Provider}.${'model' | 'effort' | 'files'}`;
const RESOURCES = ['requests.cpu', 'requests.memory', 'limits.cpu', 'limits.memory'] as const;

/** Settings by their path; those of a provider begin with its name. files: a JSON list. */
export type DefaultsDraft = Record<
  'model' | 'effort' | 'executorImage' | (typeof RESOURCES)[number] | ProviderField,
  string
>;

export const DEFAULTS_LABELS = Object.fromEntries([
  ['model', 'Model'],
  ['effort', 'Effort'],
  ['executorImage', 'Executor image'],
  ['requests.cpu', 'CPU, requested'],
  ['requests.memory', 'Memory, requested'],
  ['limits.cpu', 'CPU, limit'],
  ['limits.memory', 'Memory, limit'],
  ...PROVIDERS.flatMap((provider) => [
    [`${provider}.model`, `Model of ${provider}`],
    [`${provider}.effort`, `Effort of ${provider}`],
    [`${provider}.files`, `Files of ${provider}`],
  ]),
]) as Record<keyof DefaultsDraft, string>;

/** Fields of the form by the field of the API. */
export const DEFAULTS_NAMES = Object.fromEntries([
  ...RESOURCES.map((name) => [`executorResources.${name}`, name]),
  ...PROVIDERS.flatMap((provider) =>
    (['model', 'effort', 'files'] as const).map((name) => [`providers.${provider}.${name}`, `${provider}.${name}`]),
  ),
]) as Record<string, keyof DefaultsDraft>;

export function defaultsDraft(defaults: Defaults): DefaultsDraft {
  const ofProviders = PROVIDERS.flatMap((provider) => {
    const own = defaults.providers[provider];
    return [
      [`${provider}.model`, own?.model ?? ''],
      [`${provider}.effort`, own?.effort ?? ''],
      [`${provider}.files`, own?.files ? JSON.stringify(own.files, null, 2) : ''],
    ];
  });
  const resources = RESOURCES.map((name) => {
    const [kind = '', resource = ''] = name.split('.');
    return [name, defaults.executorResources[kind]?.[resource] ?? ''];
  });
  return {
    ...(Object.fromEntries([...ofProviders, ...resources]) as DefaultsDraft),
    model: defaults.model ?? '',
    effort: defaults.effort ?? '',
    executorImage: defaults.executorImage ?? '',
  };
}

/** The settings of a draft. null removes a setting, since the API merges. */
export function defaultsBody(draft: DefaultsDraft): { body: Body; problems: Problems<DefaultsDraft> } {
  const texts = new Texts(draft);
  const providers = PROVIDERS.map((provider) => {
    const own: Body = { model: texts.text(`${provider}.model`), effort: texts.text(`${provider}.effort`) };
    const files = texts.list(`${provider}.files`);
    const isEmpty = own['model'] === null && own['effort'] === null && files.length === 0;
    return [provider, isEmpty ? null : LOCAL_PROVIDERS.includes(provider) ? { ...own, files } : own];
  });
  const body = {
    model: texts.text('model'),
    effort: texts.text('effort'),
    executorImage: texts.text('executorImage'),
    executorResources: {
      requests: { cpu: texts.text('requests.cpu'), memory: texts.text('requests.memory') },
      limits: { cpu: texts.text('limits.cpu'), memory: texts.text('limits.memory') },
    },
    providers: Object.fromEntries(providers) as Body,
  };
  return { body, problems: texts.problems };
}
