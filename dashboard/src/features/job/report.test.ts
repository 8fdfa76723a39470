import { expect, test } from 'vitest';

import { reportParts } from './report';

test('a report is described by its parts and its target', () => {
  const target = { repository: 'octo/demo', issue: 17 };
  expect(
    reportParts({
      comment: 'sticky',
      check: {},
      review: { enabled: false },
      pullRequest: { draft: true },
      reactions: true,
      target,
    }),
  ).toBe('comment (sticky), check, pull request, reactions on octo/demo#17');
});

test('a preview says so', () => {
  expect(reportParts({ comment: 'final', mode: 'preview', target: { repository: 'octo/demo', pullRequest: 3 } })).toBe(
    'comment (final) on octo/demo#3, as a preview only',
  );
});

test('a report without a comment or target has only its other parts', () => {
  expect(reportParts({ comment: 'none', labels: { running: 'ai' } })).toBe('labels');
});
