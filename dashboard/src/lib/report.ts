/** The parts of a report to GitHub that a form offers as choices. The others stay as they are. */

export type ReportRules = Record<string, unknown>;

export interface ReportPart {
  name: 'comment' | 'check' | 'review' | 'pullRequest' | 'reactions' | 'mode';
  label: string;
  /** Values with their labels. The empty one is not set. */
  choices: readonly (readonly [string, string])[];
}

const OFF = 'off';
const ON = 'on';

export const REPORT_PARTS: readonly ReportPart[] = [
  {
    name: 'comment',
    label: 'Comment',
    choices: [
      ['sticky', 'One, kept up to date'],
      ['perJob', 'One for each job'],
      ['final', 'At the end of a job'],
      ['none', 'Off'],
    ],
  },
  {
    name: 'check',
    label: 'Check',
    choices: [
      [ON, 'On'],
      [OFF, 'Off'],
    ],
  },
  {
    name: 'review',
    label: 'Review',
    choices: [
      ['COMMENT', 'Comments'],
      ['REQUEST_CHANGES', 'May request changes'],
      ['APPROVE', 'May approve'],
      [OFF, 'Off'],
    ],
  },
  {
    name: 'pullRequest',
    label: 'Pull request',
    choices: [
      ['draft', 'As a draft'],
      ['ready', 'Ready for review'],
      [OFF, 'Off'],
    ],
  },
  {
    name: 'reactions',
    label: 'Reactions',
    choices: [
      [ON, 'On'],
      [OFF, 'Off'],
    ],
  },
  {
    name: 'mode',
    label: 'Mode',
    choices: [
      ['write', 'Write'],
      ['preview', 'Preview, write nothing'],
    ],
  },
];

/** The choice that a report makes; empty if it is not set. */
export function choiceOf(report: ReportRules, name: ReportPart['name']): string {
  const part = report[name];
  if (typeof part === 'string') return part;
  if (typeof part === 'boolean') return part ? ON : OFF;
  if (typeof part !== 'object' || part === null) return '';
  const fields = part as Record<string, unknown>;
  if (fields.enabled === false) return OFF;
  if (name === 'review') return typeof fields.event === 'string' ? fields.event : 'COMMENT';
  if (name === 'pullRequest') return fields.draft === false ? 'ready' : 'draft';
  return ON;
}

/** The report with another choice. The further fields of its parts are kept. */
export function withChoice(report: ReportRules, name: ReportPart['name'], choice: string): ReportRules {
  const { [name]: before, ...others } = report;
  if (choice === '') return others;
  if (name === 'comment' || name === 'mode') return { ...report, [name]: choice };
  if (name === 'reactions') return { ...report, reactions: choice === ON };
  const { enabled: _, ...fields } = (typeof before === 'object' ? (before ?? {}) : {}) as Record<string, unknown>;
  if (choice === OFF) return { ...report, [name]: { ...fields, enabled: false } };
  if (name === 'review') return { ...report, review: { ...fields, event: choice } };
  return { ...report, [name]: name === 'pullRequest' ? { ...fields, draft: choice === 'draft' } : fields };
}
