import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useNavigate, useSearch } from '@tanstack/react-router';
import { useState } from 'react';

import type { Schemas } from '../../api/client';
import { createKey, keysQuery, revokeKey, type ApiKey, type NewApiKey } from '../../api/keys';
import { visible } from '../../lib/ansi';
import { dayOf, fullTime } from '../../lib/format';
import { Changing } from '../../ui/access';
import { Button } from '../../ui/button';
import { Confirm } from '../../ui/confirm';
import { Copy } from '../../ui/copy';
import { Dialog } from '../../ui/dialog';
import { FieldGroup, FormBody, SelectField, TextField } from '../../ui/fields';
import { Panel } from '../../ui/page';
import { useShortcuts } from '../../ui/shortcuts';
import { Empty, Failure, Loading } from '../../ui/states';
import { cell, Table } from '../../ui/table';
import { Age, useNow } from '../../ui/time';
import { toast } from '../../ui/toasts';
import { useNewForm } from '../../ui/use-form';
import { EMPTY_KEY, hasExpired, keyBody, type KeyDraft, LIFETIMES, permission, SCOPES } from './keys';
import { SettingsLayout } from './settings-layout';
import styles from './settings.module.css';

export function KeysPage() {
  const navigate = useNavigate();
  const { create } = useSearch({ from: '/app/settings/keys' });
  const keys = useQuery(keysQuery);
  const setCreating = (isCreating: boolean) =>
    void navigate({ to: '/settings/keys', search: isCreating ? { create: true } : {} });
  useShortcuts([{ keys: 'a', label: 'New API key', isChanging: true, run: () => setCreating(true) }]);
  const list = keys.data?.apiKeys;
  return (
    <SettingsLayout
      actions={
        <Button isChanging icon="plus" onClick={() => setCreating(true)}>
          New key
        </Button>
      }
    >
      {keys.isLoadingError ? (
        <Failure error={keys.error} onRetry={() => void keys.refetch()} />
      ) : !list ? (
        <Loading rows={5} height={44} />
      ) : list.length === 0 ? (
        <Empty
          title="No API keys"
          action={
            <Button isChanging kind="primary" onClick={() => setCreating(true)}>
              New key
            </Button>
          }
        >
          Programs submit jobs and send events with a key. Each key sees its own jobs, and can be revoked alone.
        </Empty>
      ) : (
        <Panel title="API keys">
          <Table
            label="API keys"
            columns={[
              ['Name'],
              ['May', cell.minor],
              ['Last used'],
              ['Created', cell.minor],
              ['Expires', cell.minor],
              ['Actions', cell.end],
            ]}
          >
            {list.map((key) => (
              <Key key={key.id} apiKey={key} />
            ))}
          </Table>
        </Panel>
      )}
      <Changing>{create && <NewKey onClose={() => setCreating(false)} />}</Changing>
    </SettingsLayout>
  );
}

function Key({ apiKey }: { apiKey: ApiKey }) {
  const queries = useQueryClient();
  const now = useNow();
  const [isRevoking, setRevoking] = useState(false);
  const { expiresAt, lastUsedAt } = apiKey;
  const isExpired = hasExpired(expiresAt, now);
  return (
    <tr>
      <td className={cell.name}>
        {visible(apiKey.name)}
        <p className={styles.note}>
          <code>{apiKey.prefix}…</code>
          <span className={styles.narrow}> · {permission(apiKey.scopes)}</span>
          {isExpired && (
            <>
              {' '}
              <span className={styles.expired}>expired</span>
            </>
          )}
        </p>
      </td>
      <td className={cell.minor}>
        {apiKey.scopes.includes('admin') ? <span className={styles.admin}>everything</span> : permission(apiKey.scopes)}
      </td>
      <td>{lastUsedAt ? <Age at={lastUsedAt} suffix=" ago" /> : 'never'}</td>
      <td className={cell.minor}>
        <Age at={apiKey.createdAt} suffix=" ago" />
      </td>
      <td className={cell.minor}>
        {expiresAt ? (
          <time dateTime={expiresAt} title={fullTime(new Date(expiresAt))}>
            {dayOf(new Date(expiresAt))}
          </time>
        ) : (
          'never'
        )}
      </td>
      <td className={cell.end}>
        <Button kind="danger" aria-label={`Revoke ${visible(apiKey.name)}`} onClick={() => setRevoking(true)}>
          Revoke…
        </Button>
        {isRevoking && (
          <Confirm
            title={`Revoke ${apiKey.name}?`}
            action="Revoke the key"
            onClose={() => setRevoking(false)}
            run={() => revokeKey(apiKey.id)}
            onDone={async () => {
              setRevoking(false);
              toast(`${apiKey.name} is revoked.`);
              await queries.invalidateQueries({ queryKey: keysQuery.queryKey });
            }}
          >
            <p>Programs that use it are refused from now on. Its jobs continue.</p>
          </Confirm>
        )}
      </td>
    </tr>
  );
}

const FORM = 'key-form';

function NewKey({ onClose }: { onClose: () => void }) {
  const queries = useQueryClient();
  const [created, setCreated] = useState<NewApiKey>();
  const form = useNewForm<KeyDraft, NewApiKey>({
    initial: EMPTY_KEY,
    bodyOf: keyBody,
    names: { scopes: 'scope', expiresAt: 'lifetime' },
    create: (body, key) => createKey(body as Schemas['ApiKeyBody'], key),
    onDone: (key) => {
      setCreated(key);
      void queries.invalidateQueries({ queryKey: keysQuery.queryKey });
    },
  });
  if (created) return <Created apiKey={created} onClose={onClose} />;
  return (
    <Dialog
      title="New API key"
      onClose={onClose}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM} kind="primary" isBusy={form.isBusy}>
            Create key
          </Button>
        </>
      }
    >
      <FormBody form={form} id={FORM}>
        <FieldGroup>
          <TextField
            form={form}
            name="name"
            label="Name"
            width="whole"
            placeholder="ci"
            hint="For people, to know which key may be revoked."
          />
          <SelectField form={form} name="scope" label="It may" width="whole" options={SCOPES} />
          <SelectField form={form} name="lifetime" label="Expires in" width="whole" options={LIFETIMES} none="Never" />
        </FieldGroup>
      </FormBody>
    </Dialog>
  );
}

/** The key, which is shown only here. */
function Created({ apiKey, onClose }: { apiKey: NewApiKey; onClose: () => void }) {
  const command = `curl -s ${window.location.origin}/api/jobs -H "Authorization: Bearer $KEY"`;
  return (
    <Dialog
      title={`The key of ${apiKey.name}`}
      size="medium"
      isKept
      onClose={onClose}
      footer={
        <Button kind="primary" onClick={onClose}>
          Done
        </Button>
      }
    >
      <div className={styles.secret}>
        <p>Copy it now. Only its hash is stored, so it is not shown again.</p>
        <div className={styles.key}>
          <code>{apiKey.key}</code> <Copy text={apiKey.key} label="Copy" />
        </div>
        <pre>{command}</pre>
      </div>
    </Dialog>
  );
}
