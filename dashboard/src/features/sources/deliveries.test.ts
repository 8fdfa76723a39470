import { expect, test } from 'vitest';

import { keysOf, isStale } from '../../api/changes';
import { deliveriesQuery } from '../../api/sources';
import { deliverySentence, howToSend, OUTCOME_ICONS, OUTCOME_WORDS } from './deliveries';
import { OUTCOMES, validateSourceSearch } from './search';

test('each outcome has a word and an icon of its own', () => {
  expect(new Set(OUTCOMES.map((outcome) => OUTCOME_WORDS[outcome])).size).toBe(OUTCOMES.length);
  expect(new Set(OUTCOMES.map((outcome) => OUTCOME_ICONS[outcome])).size).toBe(OUTCOMES.length);
});

test('a reason of the API is shown as a sentence, and a shortened one ends with an ellipsis', () => {
  expect(
    deliverySentence({ outcome: 'ignored', reason: 'its author is not one of `allowedAssociations`', jobs: [] }),
  ).toBe('Its author is not one of `allowedAssociations`.');
  expect(deliverySentence({ outcome: 'unmatched', reason: 'n'.repeat(120), jobs: [] })).toBe(`N${'n'.repeat(119)}…`);
});

test.each(OUTCOMES)('a delivery without a reason, %s, has a sentence', (outcome) => {
  expect(deliverySentence({ outcome, reason: null, jobs: [] })).toMatch(/^[A-Z].+\.$/);
});

test.each([
  [1, '1 job:'],
  [2, '2 jobs:'],
  [10, 'At least 10 jobs:'],
])('a delivery with %d listed jobs is introduced as "%s"', (number, text) => {
  expect(
    deliverySentence({
      outcome: 'started',
      reason: null,
      jobs: Array.from({ length: number }, (_, index) => `ir-${index}`),
    }),
  ).toBe(text);
});

test('the way to send a delivery depends on the type, and a disabled source has to be turned on', () => {
  expect(howToSend({ type: 'github', enabled: true })).toContain('GitHub then sends a ping');
  expect(howToSend({ type: 'generic', enabled: true })).toContain('Standard Webhooks');
  expect(howToSend({ type: 'generic', enabled: false })).toMatch(/^The source is off: turn it on first\./);
});

test('an unknown outcome in the URL is ignored', () => {
  expect([{ outcome: 'refused' }, { outcome: 'lost' }, {}].map(validateSourceSearch)).toEqual([
    { outcome: 'refused' },
    {},
    {},
  ]);
});

test('a change of a source makes its deliveries stale, with and without a filter', () => {
  const stale = keysOf({ jobs: [], gone: [], kinds: ['webhook-sources'], counts: {} });
  expect(
    [undefined, 'refused' as const].map((outcome) =>
      isStale(deliveriesQuery('github', outcome).queryKey, undefined, stale),
    ),
  ).toEqual([true, true]);
});
