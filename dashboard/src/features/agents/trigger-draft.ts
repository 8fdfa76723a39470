/** The form of a trigger. */

import type { Agent, Trigger } from '../../api/agents';
import type { Schemas } from '../../api/client';
import { CONFIG_LABELS, configDraft, configNames, configOf, type ConfigDraft } from '../../lib/job-config';
import { REPORT_LABELS, reportText, type ReportDraft } from '../../ui/report-fields';
import { Texts, type Body, type Problems } from '../../ui/use-form';
import { isInstructionName } from './words';

export interface FilterDraft {
  path: string;
  /** A text, or JSON for other values and lists. */
  value: string;
}

export interface TriggerDraft extends ConfigDraft, ReportDraft {
  source: string;
  /** One event on each line. */
  events: string;
  filters: FilterDraft[];
  /** The name of an instruction; empty if the trigger has its own text. */
  instruction: string;
  instructionText: string;
  /** Empty if the jobs have no concurrency key. */
  concurrencyKey: string;
  onNew: string;
  debounceSeconds: string;
  next: string;
  condition: string;
  failurePolicy: string;
  allowCycles: boolean;
  /** Whether the trigger repairs failed checks. */
  ciLoop: boolean;
  ciAttempts: string;
  /** Empty for no label. */
  ciLabel: string;
}

const CI_LOOP = { attemptsPerPullRequest: 3, label: 'needs-human' } as const;

export const TRIGGER_LABELS: Record<keyof TriggerDraft, string> = {
  ...CONFIG_LABELS,
  ...REPORT_LABELS,
  source: 'Source',
  events: 'Events',
  filters: 'Filters',
  instruction: 'Instruction',
  instructionText: 'Text of the task',
  concurrencyKey: 'Concurrency key',
  onNew: 'A new job',
  debounceSeconds: 'Debounce, seconds',
  next: 'Next agent',
  condition: 'Start it',
  failurePolicy: 'After a failure',
  allowCycles: 'Allow cycles',
  ciLoop: 'Repair of failed checks',
  ciAttempts: 'Attempts at a pull request',
  ciLabel: 'Label after the last attempt',
};

export const EMPTY_TRIGGER: Trigger = {
  source: 'github',
  events: [],
  instruction: null,
  config: {},
  filters: {},
  enabled: true,
  next: null,
  concurrency: null,
};

export function triggerDraft(trigger: Trigger): TriggerDraft {
  const instruction = trigger.instruction ?? '';
  const isName = isInstructionName(instruction);
  return {
    ...configDraft(trigger.config),
    source: trigger.source,
    events: trigger.events.join('\n'),
    filters: Object.entries(trigger.filters).map(([path, value]) => ({ path, value: filterText(value) })),
    instruction: isName ? instruction : '',
    instructionText: isName ? '' : instruction,
    concurrencyKey: trigger.concurrency?.key ?? '',
    onNew: trigger.concurrency?.onNew ?? 'supersede',
    debounceSeconds: String(trigger.concurrency?.debounceSeconds ?? ''),
    next: trigger.next?.agentTriggerName ?? '',
    condition: trigger.next?.condition ?? 'on-success',
    failurePolicy: trigger.next?.failurePolicy ?? 'stop',
    allowCycles: trigger.next?.allowCycles ?? false,
    ciLoop: trigger.ciLoop !== undefined,
    ciAttempts: String((trigger.ciLoop ?? CI_LOOP).attemptsPerPullRequest),
    ciLabel: (trigger.ciLoop ?? CI_LOOP).label,
    report: reportText(trigger.report),
  };
}

/** The trigger of a draft, except for `enabled`, which has its own control. */
export function triggerBody(draft: TriggerDraft): { body: Body; problems: Problems<TriggerDraft> } {
  const texts = new Texts(draft);
  const events = draft.events
    .split(/[\n,]/)
    .map((event) => event.trim())
    .filter(Boolean);
  if (events.length === 0) texts.problems.events = 'is required';
  const filters = draft.filters.filter(({ path, value }) => path.trim() !== '' || value.trim() !== '');
  if (filters.some(({ path }) => path.trim() === '')) texts.problems.filters = 'a filter needs a path';
  if (new Set(filters.map(({ path }) => path.trim())).size < filters.length)
    texts.problems.filters = 'a path occurs twice; list its values instead, such as ["a", "b"]';
  const key = texts.text('concurrencyKey');
  const body = {
    source: texts.required('source'),
    events,
    filters: Object.fromEntries(filters.map(({ path, value }) => [path.trim(), filterValue(value)])),
    instruction: texts.text('instruction') ?? texts.text('instructionText'),
    config: configOf(texts),
    concurrency:
      key === null ? null : { key, onNew: draft.onNew, debounceSeconds: texts.number('debounceSeconds') ?? 0 },
    next:
      draft.next === ''
        ? null
        : {
            agentTriggerName: draft.next,
            condition: draft.condition,
            failurePolicy: draft.condition === 'on-success' ? draft.failurePolicy : 'stop',
            allowCycles: draft.allowCycles,
          },
    ciLoop: draft.ciLoop
      ? {
          attemptsPerPullRequest: texts.whole('ciAttempts') ?? CI_LOOP.attemptsPerPullRequest,
          label: draft.ciLabel.trim(),
        }
      : null,
    report: texts.json('report'),
  };
  return { body, problems: texts.problems };
}

/** The text that stands for a value. It is JSON where the plain text would stand for another value. */
export function filterText(value: unknown): string {
  return typeof value === 'string' && filterValue(value) === value ? value : JSON.stringify(value);
}

/** The value of a text: JSON if the text is JSON, else the text itself. */
export function filterValue(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text.trim();
  }
}

/**
 * All triggers of an agent with the changed one, as the API takes them. A trigger that others have removed is added
 * again.
 */
export function withTrigger(agent: Agent, index: number, changes: Body): Schemas['TriggerBody'][] {
  const triggers: Trigger[] = [...agent.eventTriggers];
  const at = Math.min(index, triggers.length);
  triggers[at] = { ...(triggers[at] ?? EMPTY_TRIGGER), ...changes };
  return triggers;
}

/** Fields of the form by the field of the API, for the trigger at this position. */
export function triggerNames(index: number): Record<string, keyof TriggerDraft> {
  const path = `eventTriggers[${index}]`;
  return {
    ...configNames(`${path}.config`),
    [`${path}.source`]: 'source',
    [`${path}.events`]: 'events',
    [`${path}.filters`]: 'filters',
    [`${path}.instruction`]: 'instructionText',
    [`${path}.concurrency.key`]: 'concurrencyKey',
    [`${path}.concurrency.debounceSeconds`]: 'debounceSeconds',
    [`${path}.next`]: 'next',
    [`${path}.ciLoop.attemptsPerPullRequest`]: 'ciAttempts',
    [`${path}.ciLoop.label`]: 'ciLabel',
    [`${path}.ciLoop`]: 'ciLoop',
    [`${path}.report`]: 'report',
  };
}
