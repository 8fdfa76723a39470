import { FieldGroup, SelectField, TextArea, TextField } from '../../ui/fields';
import type { Form } from '../../ui/use-form';
import { INSTRUCTION_LABELS as LABELS, SCOPES, type InstructionDraft } from './instruction-draft';

export function InstructionFields({
  form,
  isNew = false,
  rows,
}: {
  form: Form<InstructionDraft>;
  isNew?: boolean;
  rows: number;
}) {
  return (
    <FieldGroup>
      {isNew && (
        <TextField
          form={form}
          name="name"
          label={LABELS.name}
          placeholder="implement-issue"
          hint="Lower-case letters, digits, dashes."
        />
      )}
      <TextField form={form} name="displayName" label={LABELS.displayName} placeholder="Implement an issue" />
      <SelectField form={form} name="scope" label={LABELS.scope} options={SCOPES} />
      {form.draft.scope === 'global' && (
        <TextField form={form} name="priority" label={LABELS.priority} isNumeric hint="Lower ones come first." />
      )}
      <TextField
        form={form}
        name="description"
        label={LABELS.description}
        width="whole"
        placeholder="For people; agents do not see it."
      />
      <TextArea
        form={form}
        name="content"
        label={LABELS.content}
        rows={rows}
        isCode
        hint="{{ source }}, {{ event }}, {{ payload.a.b }}, {{ metadata.a }}, {{ parent.result }}, {{ parent.data.a }} and {{ parent.pullRequestUrl }} are replaced by values, marked as data. Other text in braces stays."
      />
    </FieldGroup>
  );
}
