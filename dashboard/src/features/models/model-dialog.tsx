/** Create, change and remove an AiModel. */

import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';

import type { Schemas } from '../../api/client';
import { LOCAL_PROVIDERS, PROVIDERS } from '../../api/config';
import { changeModel, createModel, readModel, refreshModels, removeModel, type AiModel } from '../../api/models';
import { secretsQuery } from '../../api/secrets';
import { visible } from '../../lib/ansi';
import { Button } from '../../ui/button';
import { Confirm } from '../../ui/confirm';
import { Dialog } from '../../ui/dialog';
import { ChangedMeanwhile, FieldGroup, FormBody, SelectField, TextField } from '../../ui/fields';
import { Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { useEditor, useNewForm, type FormState } from '../../ui/use-form';
import { EMPTY_MODEL, MODEL_LABELS, MODEL_NAMES, modelBody, modelDraft, type ModelDraft } from './model-draft';
import { suggestedName } from './rows';

const FORM = 'model-form';

/** implicit: provider and model of an implicit model, such as `qwen/qwen3-8b`, or empty. */
export function NewModelDialog({
  implicit,
  slots,
  onClose,
}: {
  implicit: string;
  slots: number | undefined;
  onClose: () => void;
}) {
  const queries = useQueryClient();
  const [provider = '', ...rest] = implicit.split('/');
  const model = rest.join('/');
  const initial = model
    ? { ...EMPTY_MODEL, provider, model, name: suggestedName(provider, model), slots: String(slots ?? 4) }
    : EMPTY_MODEL;
  const form = useNewForm<ModelDraft, AiModel>({
    initial,
    bodyOf: modelBody,
    names: MODEL_NAMES,
    create: (body, key) => createModel(body as Schemas['AiModelBody'], key),
    onDone: async (created) => {
      await refreshModels(queries);
      toast(`${created.name} is created.`);
      onClose();
    },
  });
  return (
    <Dialog
      title={model ? `Make ${implicit} a model` : 'New model'}
      size="medium"
      onClose={onClose}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM} kind="primary" isBusy={form.isBusy}>
            Create model
          </Button>
        </>
      }
    >
      <FormBody form={form} id={FORM}>
        <ModelFields form={form} isNew />
      </FormBody>
    </Dialog>
  );
}

export function EditModelDialog({ name, onClose }: { name: string; onClose: () => void }) {
  const model = useQuery({
    queryKey: ['ai-model', name],
    queryFn: () => readModel(name),
    staleTime: 0,
    refetchOnMount: 'always',
  });
  if (model.data && (model.isFetchedAfterMount || model.error)) return <Editor model={model.data} onClose={onClose} />;
  return (
    <Dialog title={name} size="medium" onClose={onClose}>
      {model.error ? (
        <Failure error={model.error} onRetry={() => void model.refetch()} />
      ) : (
        <Loading rows={8} height={36} />
      )}
    </Dialog>
  );
}

function Editor({ model, onClose }: { model: AiModel; onClose: () => void }) {
  const queries = useQueryClient();
  const [isRemoving, setRemoving] = useState(false);
  const form = useEditor<AiModel, ModelDraft>({
    storedAs: `model.${model.name}`,
    current: model,
    draftOf: modelDraft,
    bodyOf: modelBody,
    names: MODEL_NAMES,
    change: (changes) => changeModel(model.name, changes),
    read: () => readModel(model.name),
    onSaved: () => {
      void refreshModels(queries);
      toast(`${model.name} is saved.`);
      onClose();
    },
  });
  if (isRemoving) {
    return (
      <Confirm
        title={`Remove ${model.name}?`}
        action="Remove the model"
        onClose={() => setRemoving(false)}
        run={() => removeModel(model.name)}
        onDone={async () => {
          form.reset();
          onClose();
          toast(`${model.name} is removed.`);
          await refreshModels(queries);
        }}
      >
        <p>
          Its jobs continue in the default slots of {model.provider}/{visible(model.model)}, without its address,
          credentials and prices.
        </p>
      </Confirm>
    );
  }
  return (
    <Dialog
      title={model.name}
      size="medium"
      onClose={onClose}
      footer={
        <>
          <span style={{ marginInlineEnd: 'auto' }}>
            <Button kind="danger" onClick={() => setRemoving(true)}>
              Remove…
            </Button>
          </span>
          {form.isDirty && (
            <Button kind="quiet" onClick={form.reset}>
              Discard changes
            </Button>
          )}
          <Button type="submit" form={FORM} kind="primary" isBusy={form.isBusy} disabled={!form.isDirty}>
            Save
          </Button>
        </>
      }
    >
      <FormBody form={form} id={FORM}>
        <ChangedMeanwhile form={form} labels={MODEL_LABELS} />
        <ModelFields form={form} />
      </FormBody>
    </Dialog>
  );
}

function ModelFields({ form, isNew = false }: { form: FormState<ModelDraft>; isNew?: boolean }) {
  const isLocal = LOCAL_PROVIDERS.includes(form.draft.provider);
  const secrets = useQuery(secretsQuery);
  return (
    <>
      <FieldGroup columns={isNew ? 2 : 3}>
        <SelectField form={form} name="provider" label="Provider" options={PROVIDERS} />
        <TextField
          form={form}
          name="model"
          label="Model"
          placeholder={isLocal ? 'qwen3-8b' : 'opus'}
          hint="The provider's name for it."
        />
        {isNew && (
          <TextField
            form={form}
            name="name"
            label="Name"
            placeholder="claude-opus"
            hint="Lower-case letters, digits, dashes."
          />
        )}
        <TextField form={form} name="slots" label="Slots" isNumeric hint="Attempts at once; 0 pauses it." />
      </FieldGroup>
      <FieldGroup title="Connection">
        <TextField
          form={form}
          name="endpoint"
          label="Address of the server"
          placeholder={isLocal ? 'http://10.0.0.5:8000/v1' : "The provider's own"}
        />
        <TextField
          form={form}
          name="credentialsRef"
          label="Credentials"
          placeholder="None"
          suggestions={secrets.data?.secrets.map((each) => each.name) ?? []}
          hint="Name of the Secret with the provider's key."
        />
      </FieldGroup>
      {form.draft.provider === 'acp' && (
        <FieldGroup title="Program">
          <TextField
            form={form}
            name="command"
            label="Command"
            width="whole"
            placeholder="opencode acp"
            hint="A program that speaks the Agent Client Protocol. `labrats connect acp` knows some."
          />
          <TextField
            form={form}
            name="environment"
            label="Environment"
            width="whole"
            placeholder={'{"OPENAI_BASE_URL": "{url}", "OPENAI_API_KEY": "{token}", "OPENAI_MODEL": "{model}"}'}
            hint="A JSON object. {url}, {token} and {model} stand for the model's server, a token for it, and the model."
          />
        </FieldGroup>
      )}
      <FieldGroup
        title="Prices"
        note="US dollars per million tokens. Without prices, the cost is what the provider reports, or unknown."
        columns={4}
      >
        <TextField form={form} name="priceInput" label="Input" isNumeric />
        <TextField form={form} name="priceOutput" label="Output" isNumeric />
        <TextField form={form} name="priceCacheRead" label="Cache reads" isNumeric />
        <TextField form={form} name="priceCacheWrite" label="Cache writes" isNumeric placeholder="As input" />
      </FieldGroup>
      {isLocal && (
        <FieldGroup title="Sampling">
          <TextField
            form={form}
            name="sampling"
            label="Parameters"
            width="whole"
            placeholder={'{"temperature": 0.2}'}
            hint="A JSON object. Fields that are absent keep the server's values."
          />
        </FieldGroup>
      )}
    </>
  );
}
