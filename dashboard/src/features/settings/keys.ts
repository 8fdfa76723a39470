/** The form of an API key. */

import { Texts, type Body, type Problems } from '../../ui/use-form';

const DAY = 86_400_000;

export const LIFETIMES = [
  ['7', '7 days'],
  ['30', '30 days'],
  ['90', '90 days'],
  ['365', 'a year'],
] as const;

export const SCOPES = [
  ['submit', 'Submit jobs and events, and see its own jobs'],
  ['viewer', 'See everything, and change nothing'],
  ['admin', 'Everything, including settings and other keys'],
] as const;

export interface KeyDraft {
  name: string;
  scope: string;
  /** In days; empty for a key that never expires. */
  lifetime: string;
}

export const EMPTY_KEY: KeyDraft = { name: '', scope: 'submit', lifetime: '90' };

export function keyBody(draft: KeyDraft, now = Date.now()): { body: Body; problems: Problems<KeyDraft> } {
  const texts = new Texts(draft);
  const days = texts.number('lifetime');
  const body = {
    name: texts.required('name'),
    scopes: draft.scope === 'admin' ? ['submit', 'admin'] : [draft.scope],
    ...(days !== null && { expiresAt: new Date(now + days * DAY).toISOString() }),
  };
  return { body, problems: texts.problems };
}

/** What a key may do, in words. */
export function permission(scopes: readonly string[]): string {
  return scopes.includes('admin') ? 'everything' : scopes.includes('submit') ? 'submit' : 'read only';
}

export function hasExpired(expiresAt: string | null, now: number): boolean {
  return expiresAt !== null && Date.parse(expiresAt) <= now;
}
