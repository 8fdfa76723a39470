/** Sentences about the report of a job to GitHub. */

import type { JobDetail } from '../../api/jobs';

type Report = NonNullable<JobDetail['report']>;

/** The parts of a report and its target, such as `comment (sticky), check on octo/demo#17`. */
export function reportParts(report: Report): string {
  const switched = (
    [
      ['check', report.check],
      ['review', report.review],
      ['pull request', report.pullRequest],
    ] as const
  ).filter(([, part]) => part !== undefined && part['enabled'] !== false);
  const parts = [
    ...(report.comment === undefined || report.comment === 'none' ? [] : [`comment (${report.comment})`]),
    ...switched.map(([name]) => name),
    ...(report.labels ? ['labels'] : []),
    ...(report.reactions ? ['reactions'] : []),
  ];
  return `${parts.join(', ')}${targetOf(report)}${report.mode === 'preview' ? ', as a preview only' : ''}`;
}

function targetOf({ target }: Report): string {
  if (target === undefined) return '';
  const number = target['issue'] ?? target['pullRequest'];
  return ` on ${String(target['repository'])}${typeof number === 'number' ? `#${number}` : ''}`;
}
