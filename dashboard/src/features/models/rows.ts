/** The load of each model: AiModels and implicit ones in one list. */

import type { AiModel, Queue } from '../../api/models';

export interface ModelRow {
  /** Provider and model, such as `claude/opus`. */
  key: string;
  provider: string;
  model: string;
  /** Undefined for an implicit model. */
  aiModel: AiModel | undefined;
  slots: number;
  active: number;
  waiting: number;
  oldestCreatedAt: string | null;
  usualSeconds: number | null;
  pausedUntil: string | null;
}

/** Join the AiModels with the queues. An AiModel that has just been created may have no queue yet. */
export function modelRows(aiModels: readonly AiModel[], queues: readonly Queue[]): ModelRow[] {
  const key = (each: { provider: string; model: string }) => `${each.provider}/${each.model}`;
  const queueOf = new Map(queues.map((queue) => [key(queue), queue]));
  const modelOf = new Map(aiModels.map((model) => [key(model), model]));
  const keys = [...new Set([...modelOf.keys(), ...queueOf.keys()])].sort();
  return keys.flatMap((each) => {
    const [aiModel, queue] = [modelOf.get(each), queueOf.get(each)];
    const source = aiModel ?? queue;
    if (!source) return [];
    return {
      key: each,
      provider: source.provider,
      model: source.model,
      aiModel,
      slots: source.slots,
      active: queue?.active ?? source.active,
      waiting: queue?.waiting ?? aiModel?.queued ?? 0,
      oldestCreatedAt: queue?.oldestCreatedAt ?? null,
      usualSeconds: queue?.usualSeconds ?? null,
      pausedUntil: aiModel?.pausedUntil ?? queue?.pausedUntil ?? null,
    };
  });
}

/** Choices for the number of slots. The current number is always among them. */
export function slotChoices(current: number): number[] {
  return [...new Set([0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, current])].sort((a, b) => a - b);
}

/** A name for an AiModel that the API accepts. */
export function suggestedName(provider: string, model: string): string {
  const name = `${provider}-${model}`
    .toLowerCase()
    .replace(/[^a-z0-9.]+/g, '-')
    .replace(/[.-]*\.[.-]*/g, '.');
  return name.slice(0, 63).replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, '');
}
