import { EFFORTS, ISOLATIONS, PROVIDERS } from '../api/config';
import { CONFIG_LABELS as LABELS, type ConfigDraft } from '../lib/job-config';
import { FieldGroup, SelectField, TextArea, TextField } from './fields';
import { NetworkField } from './network-field';
import type { Form } from './use-form';
import { VariableFields } from './variable-fields';

/** The fields of settings of jobs. Empty ones leave the setting to the next layer. */
export function ConfigFields({ form, title, note }: { form: Form<ConfigDraft>; title: string; note: string }) {
  return (
    <FieldGroup title={title} note={note} columns={3}>
      <SelectField form={form} name="provider" label={LABELS.provider} options={PROVIDERS} none="Not set" />
      <TextField form={form} name="model" label={LABELS.model} placeholder="Not set" />
      <SelectField form={form} name="effort" label={LABELS.effort} options={EFFORTS} none="Not set" />
      <TextField form={form} name="timeoutMinutes" label={LABELS.timeoutMinutes} isNumeric />
      <TextField form={form} name="maxTurns" label={LABELS.maxTurns} isNumeric />
      <TextField form={form} name="maxAttempts" label={LABELS.maxAttempts} isNumeric />
      <TextField form={form} name="maxCostUsd" label={LABELS.maxCostUsd} isNumeric />
      <TextField form={form} name="maxTokens" label={LABELS.maxTokens} isNumeric />
      <TextField form={form} name="fallbackModel" label={LABELS.fallbackModel} />
      <NetworkField form={form} name="network" label={LABELS.network} none="Not set" />
      <SelectField form={form} name="isolation" label={LABELS.isolation} options={ISOLATIONS} none="Not set" />
      <VariableFields
        form={form}
        hint="For the agent, its tools and the setup commands. Only the first layer with variables counts."
      />
      <TextArea
        form={form}
        name="otherSettings"
        label={LABELS.otherSettings}
        rows={2}
        isCode
        placeholder={'{"fast": true}'}
        hint="A JSON object with further settings of a submission, such as `mcpServers`."
      />
    </FieldGroup>
  );
}
