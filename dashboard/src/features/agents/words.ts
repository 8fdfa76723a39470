/** Triggers and chains in words. */

import type { Trigger } from '../../api/agents';

/** The event of a trigger: "issues.labeled or issues.opened from github". */
export function eventsInWords(trigger: Pick<Trigger, 'events' | 'source'>): string {
  return `${listed(trigger.events, 'or')} from ${trigger.source}`;
}

/** One filter: "label.name is ai or ai-*". */
export function filterInWords(path: string, value: unknown): string {
  const values = Array.isArray(value) ? (value as unknown[]) : [value];
  return `${path} is ${listed(values.map(plain), 'or')}`;
}

const CONDITIONS = { 'on-success': 'on success', 'on-failure': 'on failure', always: 'in any case' } as const;
const POLICIES = {
  stop: '',
  continue: ', also after a failure',
  retry: ', with one more attempt after a failure',
} as const;

export const CONDITION_WORDS: readonly (readonly [string, string])[] = [
  ['on-success', 'When it succeeds'],
  ['on-failure', 'When it fails'],
  ['always', 'In any case'],
];
export const POLICY_WORDS: readonly (readonly [string, string])[] = [
  ['stop', 'End the chain'],
  ['continue', 'Start the next agent all the same'],
  ['retry', 'Try once more, then end the chain'],
];

export const ON_NEW_WORDS: readonly (readonly [string, string])[] = [
  ['queue', 'Waits for older jobs'],
  ['supersede', 'Cancels older jobs'],
  ['replaceWaiting', 'Cancels older jobs that wait'],
];

/** The condition of the next agent: "on success, with one more attempt after a failure". */
export function conditionInWords(next: Pick<NonNullable<Trigger['next']>, 'condition' | 'failurePolicy'>): string {
  return `${CONDITIONS[next.condition]}${next.condition === 'on-success' ? POLICIES[next.failurePolicy] : ''}`;
}

function plain(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** Parts as a list: "a, b or c". */
export function listed(parts: readonly string[], word: string): string {
  return parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} ${word} ${parts.at(-1) ?? ''}`;
}

/** Whether the instruction of a trigger is the name of an instruction rather than its text. */
export function isInstructionName(instruction: string): boolean {
  return /^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/.test(instruction);
}
