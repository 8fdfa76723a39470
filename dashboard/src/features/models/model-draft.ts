/** The form of an AiModel. */

import type { AiModel } from '../../api/models';
import { parseJson } from '../../lib/json';
import { Texts, type Body, type Problems } from '../../ui/use-form';

export interface ModelDraft {
  name: string;
  provider: string;
  model: string;
  slots: string;
  endpoint: string;
  credentialsRef: string;
  priceInput: string;
  priceOutput: string;
  priceCacheRead: string;
  priceCacheWrite: string;
  sampling: string;
  command: string;
  environment: string;
}

export const EMPTY_MODEL: ModelDraft = {
  name: '',
  provider: 'claude',
  model: '',
  slots: '4',
  endpoint: '',
  credentialsRef: '',
  priceInput: '',
  priceOutput: '',
  priceCacheRead: '',
  priceCacheWrite: '',
  sampling: '',
  command: '',
  environment: '',
};

export const MODEL_LABELS: Record<keyof ModelDraft, string> = {
  name: 'Name',
  provider: 'Provider',
  model: 'Model',
  slots: 'Slots',
  endpoint: 'Address of the server',
  credentialsRef: 'Credentials',
  priceInput: 'Price of input',
  priceOutput: 'Price of output',
  priceCacheRead: 'Price of cache reads',
  priceCacheWrite: 'Price of cache writes',
  sampling: 'Sampling',
  command: 'Command',
  environment: 'Environment',
};

/** Fields of the form by the field of the API. */
export const MODEL_NAMES = {
  'prices.input': 'priceInput',
  'prices.output': 'priceOutput',
  'prices.cacheRead': 'priceCacheRead',
  'prices.cacheWrite': 'priceCacheWrite',
} as const;

export function modelDraft(model: AiModel): ModelDraft {
  const text = (value: number | null | undefined) => (value === null || value === undefined ? '' : String(value));
  const { prices } = model;
  return {
    name: model.name,
    provider: model.provider,
    model: model.model,
    slots: String(model.slots),
    endpoint: model.endpoint ?? '',
    credentialsRef: model.credentialsRef ?? '',
    priceInput: text(prices?.input),
    priceOutput: text(prices?.output),
    priceCacheRead: text(prices?.cacheRead),
    priceCacheWrite: text(prices?.cacheWrite),
    sampling: model.sampling ? JSON.stringify(model.sampling) : '',
    command: commandText(model.command),
    environment: model.environment ? JSON.stringify(model.environment) : '',
  };
}

/** The body of the API for a draft. Without any price it has no prices: then the cost of a job is unknown. */
export function modelBody(draft: ModelDraft): { body: Body; problems: Problems<ModelDraft> } {
  const texts = new Texts(draft);
  const prices = {
    input: texts.number('priceInput'),
    output: texts.number('priceOutput'),
    cacheRead: texts.number('priceCacheRead'),
    cacheWrite: texts.number('priceCacheWrite'),
  };
  const slots = texts.whole('slots');
  if (draft.slots.trim() === '') texts.problems.slots = 'is required';
  const body = {
    name: texts.required('name'),
    provider: draft.provider,
    model: texts.required('model'),
    slots,
    endpoint: texts.text('endpoint'),
    credentialsRef: texts.text('credentialsRef'),
    prices: Object.values(prices).some((price) => price !== null)
      ? {
          input: prices.input ?? 0,
          output: prices.output ?? 0,
          cacheRead: prices.cacheRead,
          cacheWrite: prices.cacheWrite,
        }
      : null,
    sampling: texts.json('sampling'),
    command: commandOf(texts.text('command')),
    environment: texts.json('environment'),
  };
  return { body, problems: texts.problems };
}

/** The words of a command; a JSON array if one of them has a space. */
function commandText(command: readonly string[] | null): string {
  if (command === null) return '';
  return command.some((word) => /\s|^$|^\[/.test(word)) ? JSON.stringify(command) : command.join(' ');
}

function commandOf(text: string | null): string[] | null {
  const parsed = text?.startsWith('[') ? parseJson(text) : null;
  if (parsed && !('error' in parsed) && Array.isArray(parsed.value)) return parsed.value.map(String);
  return text?.split(/\s+/) ?? null;
}
