import { expect, test } from 'vitest';

import { choiceOf, REPORT_PARTS, withChoice } from './report';

const REPORT = {
  comment: 'final',
  check: { name: 'mine' },
  review: { event: 'APPROVE', maxComments: 3 },
  pullRequest: { draft: false, labels: ['ai'] },
  reactions: false,
  labels: { running: 'busy' },
};

test('the choices of a report are read from it', () => {
  expect(REPORT_PARTS.map(({ name }) => choiceOf(REPORT, name))).toEqual([
    'final',
    'on',
    'APPROVE',
    'ready',
    'off',
    '',
  ]);
  expect(
    REPORT_PARTS.map(({ name }) => choiceOf({ check: { enabled: false }, review: {}, pullRequest: {} }, name)),
  ).toEqual(['', 'off', 'COMMENT', 'draft', '', '']);
});

test('every choice is read as it was made', () => {
  for (const { name, choices } of REPORT_PARTS) {
    for (const choice of ['', ...choices.map(([value]) => value)]) {
      expect(choiceOf(withChoice(REPORT, name, choice), name)).toBe(choice);
      expect(choiceOf(withChoice({}, name, choice), name)).toBe(choice);
    }
  }
});

test('a choice keeps all else', () => {
  expect(withChoice(REPORT, 'pullRequest', 'off')).toEqual({
    ...REPORT,
    pullRequest: { draft: false, labels: ['ai'], enabled: false },
  });
  expect(withChoice(withChoice(REPORT, 'review', 'off'), 'review', 'COMMENT')).toEqual({
    ...REPORT,
    review: { event: 'COMMENT', maxComments: 3 },
  });
  expect(withChoice({ comment: 'sticky' }, 'comment', '')).toEqual({});
});
