import { FieldGroup, TextArea } from './fields';
import type { Form } from './use-form';

/** The part of a form with the report of jobs to GitHub, as a JSON object; empty if nothing is set. */
export interface ReportDraft {
  report: string;
}

export const REPORT_LABELS: Record<keyof ReportDraft, string> = { report: 'Report' };

const EXAMPLE = '{"comment": "sticky", "pullRequest": {"draft": true, "followUps": true, "signCommits": true}, "policy": {"maxPullRequests": 1}}';

/** The text of a report of the API. */
export function reportText(report: object | undefined): string {
  return report ? JSON.stringify(report, null, 2) : '';
}

/** The report of jobs to GitHub. note: its place among the layers that may set one. */
export function ReportFields({ form, note }: { form: Form<ReportDraft>; note: string }) {
  return (
    <FieldGroup title="Report to GitHub" note={note}>
      <TextArea form={form} name="report" label={REPORT_LABELS.report} rows={5} isCode placeholder={EXAMPLE}
        hint="A JSON object: comment, check, review, pullRequest (draft, titlePrefix, labels, reviewers, closes, branch, followUps, signCommits), labels, reactions, policy (maxPullRequests, maxFiles, maxKiB, protectedFiles, labels) and mode. Keys that are missing come from the next layer." />
    </FieldGroup>
  );
}
