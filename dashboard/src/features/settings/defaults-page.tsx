import { useQuery, useQueryClient } from '@tanstack/react-query';

import { changeDefaults, defaultsQuery, EFFORTS, LOCAL_PROVIDERS, PROVIDERS, type Defaults } from '../../api/config';
import { ChangedMeanwhile, FieldGroup, FormBody, SaveBar, SelectField, TextArea, TextField } from '../../ui/fields';
import { Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { useEditor, type Form } from '../../ui/use-form';
import {
  DEFAULTS_LABELS as LABELS,
  DEFAULTS_NAMES,
  defaultsBody,
  defaultsDraft,
  type DefaultsDraft,
} from './defaults-draft';
import { SettingsLayout } from './settings-layout';
import styles from './settings.module.css';

const LAYERS = ['the request', 'its trigger', "the source's repository", "the source's defaults", 'the agent'];

export function DefaultsPage() {
  const queries = useQueryClient();
  const defaults = useQuery(defaultsQuery);
  return (
    <SettingsLayout>
      {defaults.data ? (
        <Editor defaults={defaults.data} onSaved={(saved) => queries.setQueryData(defaultsQuery.queryKey, saved)} />
      ) : defaults.error ? (
        <Failure error={defaults.error} onRetry={() => void defaults.refetch()} />
      ) : (
        <Loading rows={8} height={40} />
      )}
    </SettingsLayout>
  );
}

function Editor({ defaults, onSaved }: { defaults: Defaults; onSaved: (saved: Defaults) => void }) {
  const queries = useQueryClient();
  const form = useEditor<Defaults, DefaultsDraft>({
    storedAs: 'defaults',
    current: defaults,
    draftOf: defaultsDraft,
    bodyOf: defaultsBody,
    names: DEFAULTS_NAMES,
    change: (changes) => changeDefaults(changes),
    read: () => queries.query({ ...defaultsQuery, staleTime: 0 }),
    onSaved: (saved) => {
      onSaved(saved);
      toast('The defaults are saved. New jobs use them.');
    },
  });
  return (
    <div className={styles.form}>
      <p className={styles.layers}>
        A job takes each setting from the first layer that has it: {LAYERS.join(' → ')} → <b>its provider, below</b> →{' '}
        <b>all providers, below</b> → the built-in value. The page of a job shows where each came from.
      </p>
      <FormBody form={form} footer={<SaveBar form={form} />}>
        <ChangedMeanwhile form={form} labels={LABELS} />
        <FieldGroup title="By provider">
          <div className={styles.providers}>
            {PROVIDERS.map((provider) => (
              <Provider key={provider} form={form} provider={provider} />
            ))}
          </div>
        </FieldGroup>
        <FieldGroup title="All providers" columns={3}>
          <TextField form={form} name="model" label="Model" placeholder="Not set" />
          <SelectField form={form} name="effort" label="Effort" options={EFFORTS} none="Not set" />
        </FieldGroup>
        <FieldGroup title="Executors on Kubernetes" columns={4}>
          <TextField
            form={form}
            name="executorImage"
            label={LABELS.executorImage}
            width="whole"
            placeholder="The image of the installation"
          />
          <TextField form={form} name="requests.cpu" label={LABELS['requests.cpu']} placeholder="500m" />
          <TextField form={form} name="requests.memory" label={LABELS['requests.memory']} placeholder="1Gi" />
          <TextField form={form} name="limits.cpu" label={LABELS['limits.cpu']} placeholder="2" />
          <TextField form={form} name="limits.memory" label={LABELS['limits.memory']} placeholder="4Gi" />
        </FieldGroup>
      </FormBody>
    </div>
  );
}

function Provider({ form, provider }: { form: Form<DefaultsDraft>; provider: (typeof PROVIDERS)[number] }) {
  return (
    <fieldset className={styles.provider}>
      <legend>{provider}</legend>
      <TextField form={form} name={`${provider}.model`} label="Model" placeholder="Not set" />
      <SelectField form={form} name={`${provider}.effort`} label="Effort" options={EFFORTS} none="Not set" />
      {LOCAL_PROVIDERS.includes(provider) && (
        <TextArea
          form={form}
          name={`${provider}.files`}
          label="Model files"
          width="half"
          rows={2}
          isCode
          placeholder={'[{"filename": "model.gguf", "url": "https://…", "sha256": "…"}]'}
          hint="A JSON list. The Models page downloads them."
        />
      )}
    </fieldset>
  );
}
