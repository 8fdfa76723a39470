import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useParams } from '@tanstack/react-router';
import { useState } from 'react';

import { isMissing } from '../../api/client';
import { EFFORTS, PROVIDERS } from '../../api/config';
import { agentsQuery } from '../../api/jobs';
import { useLive } from '../../api/live';
import { secretsQuery } from '../../api/secrets';
import { sessionQuery } from '../../api/session';
import {
  changeSource,
  readSource,
  removeSource,
  sourceQuery,
  sourcesQuery,
  type WebhookSource,
} from '../../api/sources';
import { visible } from '../../lib/ansi';
import { count } from '../../lib/format';
import { Changing, useMayChange } from '../../ui/access';
import { Button, IconButton } from '../../ui/button';
import { ConfigFields } from '../../ui/config-fields';
import { Confirm } from '../../ui/confirm';
import { Copy } from '../../ui/copy';
import { Dialog } from '../../ui/dialog';
import {
  AddRow,
  ChangedMeanwhile,
  CheckField,
  FieldGroup,
  FormBody,
  SaveBar,
  SelectField,
  TextField,
} from '../../ui/fields';
import { Icon } from '../../ui/icons';
import { Page, Panel } from '../../ui/page';
import { ReportFields } from '../../ui/report-fields';
import { Empty, Failure, Loading } from '../../ui/states';
import { Switch } from '../../ui/switch';
import { Age } from '../../ui/time';
import { toast } from '../../ui/toasts';
import { Texts, useEditor, useNewForm, type EditorState, type Form } from '../../ui/use-form';
import { DeliveriesPanel } from './deliveries-panel';
import {
  ASSOCIATIONS,
  newSecret,
  SOURCE_LABELS as LABELS,
  SOURCE_NAMES,
  sourceBody,
  sourceDraft,
  type OverrideDraft,
  type SourceDraft,
} from './source-draft';
import { Conditions, SourceSwitch } from './source-parts';
import styles from './sources-page.module.css';
import { SetUp } from './sources-page';

export function SourcePage() {
  const { id } = useParams({ from: '/app/sources/$id' });
  const [isRemoving, setRemoving] = useState(false); // a removed source is not read again
  const source = useQuery({ ...sourceQuery(id), enabled: !isRemoving });
  const isRemoved = source.data !== undefined && isMissing(source.error);
  useLive([sourceQuery(id)], source.data !== undefined && !isRemoving && !isRemoved);
  return (
    <>
      <Link to="/sources" className={styles.back}>
        <Icon name="chevronLeft" size={14} /> Webhooks
      </Link>
      <Page
        isForm
        title={visible(id)}
        actions={
          source.data &&
          !isRemoved && (
            <span className={styles.state}>
              {source.data.enabled ? 'On' : 'Off'} <SourceSwitch source={source.data} />
            </span>
          )
        }
      >
        {isRemoved ? (
          <Empty title="The source was removed">
            It was removed while this page was open. Its address refuses deliveries; its jobs remain.
          </Empty>
        ) : source.data ? (
          <Source key={id} source={source.data} isRemoving={isRemoving} setRemoving={setRemoving} />
        ) : source.error ? (
          <Failure error={source.error} onRetry={() => void source.refetch()} />
        ) : (
          <Loading rows={8} height={36} />
        )}
      </Page>
    </>
  );
}

/** The repositories that a source reads by itself. */
function Polling({ source }: { source: WebhookSource }) {
  return (
    <Panel title="Reading">
      <dl className={styles.facts}>
        <div>
          <dt>Repositories</dt>
          <dd>{visible(source.repositories.join(', '))}</dd>
        </div>
        <div>
          <dt>Last read</dt>
          <dd>{source.lastPolledAt ? <Age at={source.lastPolledAt} suffix=" ago" /> : 'Not yet'}</dd>
        </div>
        {source.rateRemaining !== null && (
          <div>
            <dt>Requests left this hour</dt>
            <dd>{count(source.rateRemaining)}</dd>
          </div>
        )}
      </dl>
    </Panel>
  );
}

function Source({
  source,
  isRemoving,
  setRemoving,
}: {
  source: WebhookSource;
  isRemoving: boolean;
  setRemoving: (isRemoving: boolean) => void;
}) {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const [dialog, setDialog] = useState<'remove' | 'rotate'>();
  const close = () => setDialog(undefined);
  const remove = async () => {
    setRemoving(true);
    try {
      await removeSource(source.id);
    } catch (error) {
      setRemoving(false);
      throw error;
    }
  };
  const store = (saved: WebhookSource) => {
    queries.setQueryData(sourceQuery(source.id).queryKey, saved);
    void queries.invalidateQueries({ queryKey: sourcesQuery.queryKey });
  };
  const form = useEditor<WebhookSource, SourceDraft>({
    storedAs: `source.${source.id}`,
    current: source,
    draftOf: sourceDraft,
    bodyOf: sourceBody,
    names: SOURCE_NAMES,
    change: (changes) => changeSource(source.id, changes),
    read: () => readSource(source.id),
    onSaved: (saved) => {
      store(saved);
      toast(`${saved.name} is saved.`);
    },
  });
  return (
    <div className={styles.body}>
      {source.mode === 'poll' && <Polling source={source} />}
      <Panel
        title="Receiver"
        note={
          <Button isChanging icon="key" onClick={() => setDialog('rotate')}>
            Rotate the secret…
          </Button>
        }
      >
        <dl className={styles.facts}>
          <div>
            <dt>Address</dt>
            <dd>
              {source.url ? (
                <>
                  <code>{source.url}</code> <Copy text={source.url} name="Copy the address" />
                </>
              ) : source.mode === 'poll' ? (
                'None needed: the engine reads the events.'
              ) : (
                'Not known yet: its receiver has not reported one.'
              )}
            </dd>
          </div>
          <div>
            <dt>Secret</dt>
            <dd>
              {source.secretRef ? (
                <>
                  key <code>{source.secretRef.key}</code> of <code>{source.secretRef.name}</code>
                </>
              ) : (
                'none'
              )}
            </dd>
          </div>
          <div>
            <dt>Deliveries</dt>
            <dd>
              {source.lastDeliveryAt ? (
                <span>
                  {count(source.deliveries)} accepted, the latest <Age at={source.lastDeliveryAt} suffix=" ago" />
                </span>
              ) : (
                'None so far'
              )}
            </dd>
          </div>
          {source.conditions.length > 0 && (
            <div>
              <dt>Conditions</dt>
              <dd>
                <Conditions source={source} />
              </dd>
            </div>
          )}
        </dl>
      </Panel>
      <DeliveriesPanel source={source} isRemoving={isRemoving} />
      <FormBody form={form} footer={<SaveBar form={form} />}>
        <ChangedMeanwhile form={form} labels={LABELS} />
        <SourceFields form={form} />
      </FormBody>
      <Changing>
        <section className={styles.danger} aria-label="Remove the source">
          <p>Removing the source keeps its jobs.</p>
          <Button kind="danger" onClick={() => setDialog('remove')}>
            Remove source…
          </Button>
        </section>
      </Changing>
      {dialog === 'rotate' && <Rotation source={source} onSaved={store} onClose={close} />}
      {dialog === 'remove' && (
        <Confirm
          title={`Remove ${source.name}?`}
          action="Remove the source"
          onClose={close}
          run={remove}
          onDone={async () => {
            form.reset();
            toast(`${source.name} is removed.`);
            await navigate({ to: '/sources' });
            queries.removeQueries({ queryKey: sourceQuery(source.id).queryKey });
            await queries.invalidateQueries({ queryKey: sourcesQuery.queryKey });
          }}
        >
          <p>Deliveries to its address are refused from then on. A signing secret that belongs to it is deleted.</p>
        </Confirm>
      )}
    </div>
  );
}

function SourceFields({ form }: { form: EditorState<SourceDraft> }) {
  const me = useQuery(sessionQuery);
  const secrets = useQuery({ ...secretsQuery, enabled: useMayChange() });
  const isGitHub = form.draft.type === 'github';
  return (
    <>
      <FieldGroup title="Source">
        <SelectField
          form={form}
          name="type"
          label={LABELS.type}
          options={[
            ['github', 'GitHub'],
            ['generic', 'Generic (Standard Webhooks)'],
          ]}
        />
        <TextField
          form={form}
          name="credentialsRef"
          label={LABELS.credentialsRef}
          placeholder="None"
          suggestions={secrets.data?.secrets.map((each) => each.name) ?? []}
          hint="Name of the Secret with a GitHub App or a token, to clone its repositories."
        />
      </FieldGroup>
      {isGitHub && (
        <FieldGroup
          title={LABELS.associations}
          note="By what they write, depending on their association with the repository."
        >
          <Associations form={form} />
          <CheckField form={form} name="allowForks" label="Pull requests from forks may start a run" />
        </FieldGroup>
      )}
      <ConfigFields
        form={form}
        title="Settings of its jobs"
        note="Triggers and requests may set others. Empty ones are left to the agent and the engine."
      />
      {isGitHub && (
        <ReportFields
          form={form}
          note="For all its jobs. A trigger may set other keys; the agent's apply where nothing else is set."
        />
      )}
      <FieldGroup title={LABELS.overrides} note="They take precedence over the settings above.">
        <Overrides form={form} />
      </FieldGroup>
      {me.data?.backend === 'kubernetes' && (
        <FieldGroup title="Ingress">
          <TextField form={form} name="host" label={LABELS.host} placeholder="hooks.example.com" />
          <TextField form={form} name="path" label={LABELS.path} placeholder="/webhooks/github" />
          <TextField
            form={form}
            name="ingressClassName"
            label={LABELS.ingressClassName}
            placeholder="The cluster's default"
          />
          <TextField form={form} name="tlsSecretName" label={LABELS.tlsSecretName} placeholder="None" />
        </FieldGroup>
      )}
    </>
  );
}

function Associations({ form }: { form: Form<SourceDraft> }) {
  const { associations } = form.draft;
  const toggle = (value: string, isOn: boolean) =>
    form.set('associations', isOn ? [...associations, value] : associations.filter((each) => each !== value));
  return (
    <div role="group" aria-label={LABELS.associations} className={styles.associations}>
      {ASSOCIATIONS.map(([value, label]) => (
        <label key={value}>
          <input
            type="checkbox"
            name="associations"
            checked={associations.includes(value)}
            onChange={(event) => toggle(value, event.target.checked)}
          />{' '}
          {label}
        </label>
      ))}
    </div>
  );
}

const NEW_OVERRIDE: OverrideDraft = {
  repo: '',
  enabled: true,
  provider: '',
  model: '',
  effort: '',
  agent: '',
  report: undefined,
};

function Overrides({ form }: { form: Form<SourceDraft> }) {
  const { overrides } = form.draft;
  const agents = useQuery(agentsQuery);
  const change = (index: number, part: Partial<OverrideDraft>) =>
    form.set(
      'overrides',
      overrides.map((each, at) => (at === index ? { ...each, ...part } : each)),
    );
  const choice = (
    index: number,
    field: 'provider' | 'effort' | 'agent',
    label: string,
    none: string,
    options: readonly string[],
  ) => {
    const value = overrides[index]?.[field] ?? '';
    return (
      <select
        aria-label={`${label} of repository ${index + 1}`}
        value={value}
        onChange={(event) => change(index, { [field]: event.target.value })}
      >
        <option value="">{none}</option>
        {value !== '' && !options.includes(value) && <option value={value}>{value}</option>}
        {options.map((each) => (
          <option key={each} value={each}>
            {each}
          </option>
        ))}
      </select>
    );
  };
  return (
    <div className={styles.overrides}>
      {overrides.map((override, index) => (
        <div key={index} className={styles.override}>
          <input
            aria-label={`Repository ${index + 1}`}
            value={override.repo}
            placeholder="owner/repository"
            spellCheck={false}
            autoComplete="off"
            onChange={(event) => change(index, { repo: event.target.value })}
          />
          {choice(index, 'provider', 'Provider', 'Provider', PROVIDERS)}
          <input
            aria-label={`Model of repository ${index + 1}`}
            value={override.model}
            placeholder="Model"
            spellCheck={false}
            autoComplete="off"
            onChange={(event) => change(index, { model: event.target.value })}
          />
          {choice(index, 'effort', 'Effort', 'Effort', EFFORTS)}
          {choice(index, 'agent', 'Only agent', 'Any agent', agents.data?.agents.map((each) => each.triggerName) ?? [])}
          <Switch
            label={`Repository ${index + 1} starts agents`}
            isOn={override.enabled}
            onChange={(enabled) => change(index, { enabled })}
          />
          <IconButton
            isChanging
            icon="close"
            label={`Remove repository ${index + 1}`}
            onClick={() =>
              form.set(
                'overrides',
                overrides.filter((_, at) => at !== index),
              )
            }
          />
        </div>
      ))}
      <AddRow
        form={form}
        name="overrides"
        hint="Events of a repository that is switched off start nothing."
        onAdd={() => form.set('overrides', [...overrides, NEW_OVERRIDE])}
      >
        Add repository
      </AddRow>
    </div>
  );
}

const ROTATION = 'rotation-form';

interface SecretDraft {
  secret: string;
}

function secretBody(draft: SecretDraft) {
  const texts = new Texts(draft);
  return { body: { secret: texts.required('secret') }, problems: texts.problems };
}

/** Replace the signing secret: a new one is offered, and shown until the dialog is closed. */
function Rotation({
  source,
  onSaved,
  onClose,
}: {
  source: WebhookSource;
  onSaved: (saved: WebhookSource) => void;
  onClose: () => void;
}) {
  const [secret] = useState(newSecret);
  const [isDone, setDone] = useState(false);
  const form = useNewForm<SecretDraft, WebhookSource>({
    initial: { secret },
    bodyOf: secretBody,
    create: (body) => changeSource(source.id, body),
    onDone: (saved) => {
      onSaved(saved);
      setDone(true);
    },
  });
  if (isDone) {
    return (
      <Dialog
        title="The secret is replaced"
        size="medium"
        onClose={onClose}
        footer={
          <Button kind="primary" onClick={onClose}>
            Done
          </Button>
        }
      >
        <SetUp source={source} secret={form.draft.secret} />
      </Dialog>
    );
  }
  return (
    <Dialog
      title={`Rotate the secret of ${source.name}`}
      size="medium"
      onClose={onClose}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={ROTATION} kind="primary" isBusy={form.isBusy}>
            Replace the secret
          </Button>
        </>
      }
    >
      <FormBody form={form} id={ROTATION}>
        <p>Deliveries that are signed with the old secret are refused at once, until the sender has the new one.</p>
        <TextField form={form} name="secret" label="New secret" hint="This one is new and random." />
      </FormBody>
    </Dialog>
  );
}
