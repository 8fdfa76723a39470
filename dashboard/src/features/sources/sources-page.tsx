import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useCallback, useState } from 'react';

import type { Schemas } from '../../api/client';
import { useLive } from '../../api/live';
import { createSource, sourcesQuery, type WebhookSource } from '../../api/sources';
import { visible } from '../../lib/ansi';
import { counted } from '../../lib/format';
import { Changing } from '../../ui/access';
import { Button } from '../../ui/button';
import { Copy } from '../../ui/copy';
import { Dialog } from '../../ui/dialog';
import { FieldGroup, FormBody, SelectField, TextField } from '../../ui/fields';
import { Icon } from '../../ui/icons';
import { Page } from '../../ui/page';
import { useShortcuts } from '../../ui/shortcuts';
import { Empty, Failure, Loading } from '../../ui/states';
import { Age } from '../../ui/time';
import { Texts, useNewForm } from '../../ui/use-form';
import { ConnectDialog } from './connect-dialog';
import { newSecret } from './source-draft';
import { Conditions, SourceSwitch } from './source-parts';
import styles from './sources-page.module.css';

export function SourcesPage() {
  const navigate = useNavigate();
  const search = useSearch({ from: '/app/sources' });
  const sources = useQuery(sourcesQuery);
  useLive([sourcesQuery]);
  const setCreating = (isCreating: boolean) =>
    void navigate({ to: '/sources', search: isCreating ? { create: true } : {} });
  const close = useCallback(() => void navigate({ to: '/sources', search: {} }), [navigate]);
  const connect = useCallback(
    () => void navigate({ to: '/sources', search: { connect: true }, replace: true }),
    [navigate],
  );
  useShortcuts([{ keys: 'a', label: 'New webhook source', isChanging: true, run: () => setCreating(true) }]);
  const list = sources.data?.webhookSources;
  return (
    <Page
      title="Webhooks"
      actions={
        <div className={styles.actions}>
          <Button isChanging onClick={connect}>
            Connect GitHub
          </Button>
          <Button isChanging icon="plus" onClick={() => setCreating(true)}>
            New source
          </Button>
        </div>
      }
    >
      {sources.isLoadingError ? (
        <Failure error={sources.error} onRetry={() => void sources.refetch()} />
      ) : !list ? (
        <Loading rows={3} height={92} />
      ) : list.length === 0 ? (
        <Empty
          title="No webhook sources"
          action={
            <Button isChanging kind="primary" onClick={connect}>
              Connect GitHub
            </Button>
          }
        >
          A source receives deliveries, such as issues and pull requests of GitHub, checks their signature, and starts
          the agents whose triggers match.
        </Empty>
      ) : (
        <ul className={styles.sources}>
          {list.map((source) => (
            <SourceCard key={source.id} source={source} />
          ))}
        </ul>
      )}
      <Changing>
        {search.create && <NewSource onClose={() => setCreating(false)} />}
        {(search.connect ?? search.code) && <ConnectDialog search={search} onStored={connect} onClose={close} />}
      </Changing>
    </Page>
  );
}

function SourceCard({ source }: { source: WebhookSource }) {
  return (
    <li className={styles.source}>
      <header>
        <h2>
          <Link to="/sources/$id" params={{ id: source.id }}>
            {visible(source.name)}
          </Link>
        </h2>
        <span className={styles.type}>
          {source.mode === 'poll' ? `${source.type}, read every minute` : source.type}
        </span>
        <span className={styles.deliveries}>
          {source.lastDeliveryAt ? (
            <>
              {counted(source.deliveries, 'delivery', 'deliveries')}, latest{' '}
              <Age at={source.lastDeliveryAt} suffix=" ago" />
            </>
          ) : (
            'no delivery so far'
          )}
        </span>
        <SourceSwitch source={source} />
      </header>
      {source.url && (
        <p className={styles.address}>
          <code>{source.url}</code> <Copy text={source.url} name={`Copy the address of ${source.name}`} />
        </p>
      )}
      <Conditions source={source} isShort />
      {source.refusedDeliveries > 0 && (
        <Link
          to="/sources/$id"
          params={{ id: source.id }}
          search={{ outcome: 'refused' }}
          className={`${styles.outcome} ${styles.refused}`}
        >
          <Icon name="warning" />
          {counted(source.refusedDeliveries, 'delivery', 'deliveries')} refused in 24 h
        </Link>
      )}
    </li>
  );
}

const FORM = 'source-form';

interface NewSourceDraft {
  name: string;
  type: string;
  secret: string;
  secretName: string;
  secretKey: string;
}

function newSourceBody(draft: NewSourceDraft) {
  const texts = new Texts(draft);
  const own = texts.text('secretName');
  if (!own && draft.secret.trim() === '') texts.problems.secret = 'is required';
  const secret = own ? { secretRef: { name: own, key: texts.required('secretKey') } } : { secret: draft.secret };
  return { body: { name: texts.required('name'), type: draft.type, ...secret }, problems: texts.problems };
}

function NewSource({ onClose }: { onClose: () => void }) {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const [secret] = useState(newSecret);
  const [created, setCreated] = useState<WebhookSource>();
  const form = useNewForm<NewSourceDraft, WebhookSource>({
    initial: { name: '', type: 'github', secret, secretName: '', secretKey: 'secret' },
    bodyOf: newSourceBody,
    names: { 'secretRef.name': 'secretName', 'secretRef.key': 'secretKey', secretRef: 'secretName' },
    create: (body, key) => createSource(body as Schemas['WebhookSourceBody'], key),
    onDone: (source) => {
      setCreated(source);
      void queries.invalidateQueries({ queryKey: sourcesQuery.queryKey });
    },
  });
  if (created) {
    const close = () => void navigate({ to: '/sources/$id', params: { id: created.id } });
    return (
      <Dialog
        title={`${created.name} is created`}
        size="medium"
        isKept
        onClose={close}
        footer={
          <Button kind="primary" onClick={close}>
            Done
          </Button>
        }
      >
        <SetUp source={created} secret={form.draft.secretName ? undefined : form.draft.secret} />
      </Dialog>
    );
  }
  return (
    <Dialog
      title="New webhook source"
      size="medium"
      onClose={onClose}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM} kind="primary" isBusy={form.isBusy}>
            Create source
          </Button>
        </>
      }
    >
      <FormBody form={form} id={FORM}>
        <FieldGroup>
          <TextField form={form} name="name" label="Name" placeholder="github" hint="Part of its address." />
          <SelectField
            form={form}
            name="type"
            label="Type"
            options={[
              ['github', 'GitHub'],
              ['generic', 'Generic (Standard Webhooks)'],
            ]}
          />
          <TextField
            form={form}
            name="secret"
            label="Signing secret"
            width="whole"
            hint="The sender signs with it. This one is new and random; it is shown once more after this step."
          />
        </FieldGroup>
        <details className={styles.more}>
          <summary>Use a Secret that exists</summary>
          <FieldGroup>
            <TextField
              form={form}
              name="secretName"
              label="Name of the Secret"
              hint="Instead of the signing secret above."
            />
            <TextField form={form} name="secretKey" label="Its key" />
          </FieldGroup>
        </details>
      </FormBody>
    </Dialog>
  );
}

/** What to enter at the sender. */
export function SetUp({ source, secret }: { source: WebhookSource; secret: string | undefined }) {
  return (
    <div className={styles.setUp}>
      <p>
        {source.type === 'github'
          ? 'Enter this in the repository or organisation on GitHub, under Settings, Webhooks. Choose the content type application/json.'
          : 'Enter this at the sender, which signs its deliveries as in the Standard Webhooks specification.'}
      </p>
      <dl>
        <div>
          <dt>Address</dt>
          <dd>
            {source.url ? (
              <>
                <code>{source.url}</code> <Copy text={source.url} name="Copy the address" />
              </>
            ) : (
              'Known once its receiver runs; the page of the source shows it.'
            )}
          </dd>
        </div>
        {secret !== undefined && (
          <div>
            <dt>Secret</dt>
            <dd>
              <code>{secret}</code> <Copy text={secret} name="Copy the secret" />
            </dd>
          </div>
        )}
      </dl>
      {secret !== undefined && <p>The secret is not shown again.</p>}
    </div>
  );
}
