import { parseJson } from '../lib/json';
import { choiceOf, REPORT_PARTS, withChoice, type ReportRules } from '../lib/report';
import { Field } from './field';
import { FieldGroup, TextArea } from './fields';
import type { Form } from './use-form';

/** The part of a form with the report of jobs to GitHub, as a JSON object; empty if nothing is set. */
export interface ReportDraft {
  report: string;
}

export const REPORT_LABELS: Record<keyof ReportDraft, string> = { report: 'Report' };

/** The text of a report of the API. */
export function reportText(report: object | undefined): string {
  return report && Object.keys(report).length > 0 ? JSON.stringify(report, null, 2) : '';
}

function rulesOf(text: string): ReportRules | undefined {
  if (text.trim() === '') return {};
  const parsed = parseJson(text);
  return 'value' in parsed && typeof parsed.value === 'object' && parsed.value !== null && !Array.isArray(parsed.value)
    ? (parsed.value as ReportRules)
    : undefined;
}

/**
 * The report of jobs to GitHub: its parts as choices, and the whole as JSON. note: its place among the layers that may
 * set one.
 */
export function ReportFields({ form, note }: { form: Form<ReportDraft>; note: string }) {
  const rules = rulesOf(form.draft.report);
  return (
    <FieldGroup title="Report to GitHub" note={note} columns={3}>
      {REPORT_PARTS.map(({ name, label, choices }) => (
        <Field key={name} label={label}>
          {(ids) => (
            <select
              {...ids}
              disabled={rules === undefined}
              value={rules ? choiceOf(rules, name) : ''}
              onChange={(event) => form.set('report', reportText(withChoice(rules ?? {}, name, event.target.value)))}
            >
              <option value="">Not set</option>
              {choices.map(([value, text]) => (
                <option key={value} value={value}>
                  {text}
                </option>
              ))}
            </select>
          )}
        </Field>
      ))}
      <TextArea
        form={form}
        name="report"
        label={REPORT_LABELS.report}
        rows={5}
        isCode
        placeholder={'{"pullRequest": {"labels": ["ai"], "reviewers": ["octocat"]}, "policy": {"maxFiles": 20}}'}
        hint="The choices as a JSON object, which also takes the fields of the parts, labels and policy. Keys that are missing come from the next layer."
      />
    </FieldGroup>
  );
}
