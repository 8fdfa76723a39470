import { SETUP_LABELS as LABELS, type SetupDraft } from '../lib/setup';
import { TextArea, TextField } from './fields';
import { NetworkField } from './network-field';
import type { FormWith } from './use-form';

/** The preparation of a workspace: commands and, once there are some, their limits and cached folders. */
export function SetupFields({ form }: { form: FormWith<SetupDraft> }) {
  const { draft, problems } = form;
  const fields = ['setup', 'setupMinutes', 'setupNetwork', 'cache'] as const;
  return (
    <>
      <TextArea
        form={form}
        name="setup"
        label={LABELS.setup}
        rows={2}
        isCode
        placeholder="npm ci"
        hint="One a line, without a shell. They run before the agent starts, without the model's key."
      />
      {fields.some((field) => draft[field].trim() !== '' || problems[field]) && (
        <>
          <NetworkField form={form} name="setupNetwork" label={LABELS.setupNetwork} none="That of the agent" />
          <TextField
            form={form}
            name="setupMinutes"
            label={LABELS.setupMinutes}
            width="half"
            isNumeric
            placeholder="10"
          />
          <TextArea
            form={form}
            name="cache"
            label={LABELS.cache}
            rows={2}
            isCode
            placeholder="package-lock.json: node_modules"
            hint="One a line: a file, and a folder that later jobs get while the file stays the same."
          />
        </>
      )}
    </>
  );
}
