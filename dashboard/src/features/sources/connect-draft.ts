/** The steps by which a person connects GitHub, and their texts. */

import type { Connection } from '../../api/github';
import type { System } from '../../api/keys';
import { visible } from '../../lib/ansi';

export type Step = 'other attempt' | 'store' | 'choose' | 'start';

/** The next step. code, state: with which GitHub has sent the browser back. expected: the state of this browser tab. */
export function stepOf(
  github: System['github'],
  { code, state }: { code?: string; state?: string },
  expected: string | null,
): Step {
  if (code) return state !== undefined && state === expected ? 'store' : 'other attempt';
  return github.hasApp ? 'choose' : 'start';
}

/** Return the repositories of the sources, in small letters. */
export function connectedRepositories(github: System['github']): Set<string> {
  return new Set(github.sources.flatMap((each) => each.repositories.map((name) => name.toLowerCase())));
}

export function connectedSentence({ source, repositories, mode }: Connection): string {
  const names = repositories.map(visible).join(', ');
  return mode === 'poll' ? `${source} reads ${names} once a minute.` : `${source} receives the events of ${names}.`;
}

/** Leave the page for the one on GitHub that creates the App. */
export function sendForm(address: string, manifest: unknown): void {
  const form = document.createElement('form');
  form.method = 'post';
  form.action = address;
  const field = document.createElement('input');
  field.type = 'hidden';
  field.name = 'manifest';
  field.value = JSON.stringify(manifest);
  form.append(field);
  document.body.append(form);
  form.submit();
}
