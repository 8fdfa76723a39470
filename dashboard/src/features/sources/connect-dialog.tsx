/** Connect GitHub: create an App there, install it, and choose its repositories; or use a personal token. */

import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useState, type ReactNode } from 'react';

import { appQuery, connectGitHub, describeApp, newAppQuery, type AppForm, type Connection } from '../../api/github';
import { systemQuery, type System } from '../../api/keys';
import type { Schemas } from '../../api/client';
import { visible } from '../../lib/ansi';
import { readStored, writeStored } from '../../lib/storage';
import { Button, buttonClass } from '../../ui/button';
import { Dialog } from '../../ui/dialog';
import { CheckField, FieldGroup, FormBody, TextField } from '../../ui/fields';
import { Notice } from '../../ui/notice';
import { Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { Texts, useNewForm } from '../../ui/use-form';
import { connectedRepositories, connectedSentence, sendForm, stepOf } from './connect-draft';
import type { SourcesSearch } from './search';
import styles from './sources-page.module.css';

const STATE = 'labrats.github';
const FORM = 'connect-form';
const INSTALL_MS = 3_000;

interface DialogProps {
  onClose: () => void;
}

/** search: of the address to which GitHub has sent the browser back. onStored: the code is used up. */
export function ConnectDialog({
  search,
  onStored,
  onClose,
}: DialogProps & { search: SourcesSearch; onStored: () => void }) {
  const system = useQuery(systemQuery);
  const github = system.data?.github;
  const [expected] = useState(() => readStored('sessionStorage', STATE));
  if (!github)
    return (
      <Frame onClose={onClose}>
        {system.error ? <Failure error={system.error} onRetry={() => void system.refetch()} /> : <Loading />}
      </Frame>
    );
  switch (stepOf(github, search, expected)) {
    case 'store':
      return <Store code={search.code ?? ''} onStored={onStored} onClose={onClose} />;
    case 'choose':
      return <Choose github={github} onClose={onClose} />;
    case 'start':
      return <Start onClose={onClose} />;
    case 'other attempt':
      return (
        <Frame onClose={onClose} footer={<Button onClick={onStored}>Start again</Button>}>
          <Notice>GitHub’s answer belongs to another attempt, or to another browser tab. No App is stored.</Notice>
        </Frame>
      );
  }
}

function Frame({ children, footer, onClose }: DialogProps & { children: ReactNode; footer?: ReactNode }) {
  return (
    <Dialog title="Connect GitHub" size="medium" onClose={onClose} footer={footer}>
      <div className={styles.setUp}>{children}</div>
    </Dialog>
  );
}

function Start({ onClose }: DialogProps) {
  const form = useNewForm<{ organization: string }, AppForm>({
    initial: { organization: '' },
    bodyOf: (draft) => ({
      body: { redirectUrl: `${location.origin}/sources`, organization: draft.organization.trim() || null },
      problems: {},
    }),
    create: (body) => describeApp(body as Schemas['GitHubAppFormBody']),
    onDone: ({ address, manifest, state }) => {
      writeStored('sessionStorage', STATE, state);
      sendForm(address, manifest);
    },
  });
  return (
    <Frame
      onClose={onClose}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM} kind="primary" isBusy={form.isBusy}>
            Create the App on GitHub
          </Button>
        </>
      }
    >
      <p>
        Labels and comments on GitHub start agents, and their results appear there. GitHub asks you to create an App
        with the rights that the agents need, and then on which repositories you install it.
      </p>
      <FormBody form={form} id={FORM}>
        <TextField form={form} name="organization" label="Organization" placeholder="None: the App is yours" />
      </FormBody>
      <details className={styles.more}>
        <summary>Use a personal token</summary>
        <TokenForm onClose={onClose} />
      </details>
    </Frame>
  );
}

function TokenForm({ onClose }: DialogProps) {
  const onDone = useConnected(onClose);
  const form = useNewForm<{ token: string; repository: string }, Connection>({
    initial: { token: '', repository: '' },
    bodyOf: (draft) => {
      const texts = new Texts(draft);
      const body = { token: texts.required('token'), repositories: [texts.required('repository')] };
      return { body, problems: texts.problems };
    },
    names: { repositories: 'repository' },
    create: (body) => connectGitHub(body as unknown as Schemas['GitHubConnectionBody']),
    onDone,
  });
  return (
    <FormBody
      form={form}
      footer={
        <div>
          <Button type="submit" isBusy={form.isBusy}>
            Connect the repository
          </Button>
        </div>
      }
    >
      <FieldGroup note="Unlike an App, a token writes in its owner’s name, and has commit statuses instead of checks with buttons.">
        <TextField form={form} name="repository" label="Repository" placeholder="octocat/hello-world" />
        <TextField
          form={form}
          name="token"
          label="Token"
          isSecret
          hint="It reads and writes contents, issues, pull requests and commit statuses."
        />
      </FieldGroup>
    </FormBody>
  );
}

/** Store the App for the code that GitHub has sent. */
function Store({ code, onStored, onClose }: DialogProps & { code: string; onStored: () => void }) {
  const queries = useQueryClient();
  const { data, error } = useQuery(newAppQuery(code));
  useEffect(() => {
    if (!data) return;
    writeStored('sessionStorage', STATE, undefined);
    queries.setQueryData(appQuery.queryKey, data);
    void queries.invalidateQueries({ queryKey: systemQuery.queryKey }).then(onStored);
  }, [data, queries, onStored]);
  return (
    <Frame onClose={onClose} footer={error && <Button onClick={onStored}>Start again</Button>}>
      {error ? <Failure error={error} /> : <Loading rows={4} />}
    </Frame>
  );
}

/** Install the App, and choose among its repositories. */
function Choose({ github, onClose }: DialogProps & { github: System['github'] }) {
  const app = useQuery({
    ...appQuery,
    staleTime: 0,
    refetchInterval: ({ state }) => (state.data?.repositories.length ? false : INSTALL_MS),
  });
  if (!app.data)
    return (
      <Frame onClose={onClose}>
        {app.error ? <Failure error={app.error} onRetry={() => void app.refetch()} /> : <Loading rows={4} />}
      </Frame>
    );
  const { login, installUrl, repositories, suspended } = app.data;
  const install = (
    <a
      href={installUrl}
      target="_blank"
      rel="noopener noreferrer"
      className={buttonClass(repositories.length ? 'plain' : 'primary')}
    >
      {repositories.length ? 'Install it on more' : 'Install it on GitHub'}
    </a>
  );
  return (
    <Frame
      onClose={onClose}
      footer={
        <>
          {install}
          {repositories.length > 0 && (
            <Button type="submit" form={FORM} kind="primary">
              Connect
            </Button>
          )}
        </>
      }
    >
      <p>
        The App <strong>{visible(login)}</strong> is stored.{' '}
        {repositories.length ? 'Choose the repositories whose events start agents.' : 'Now install it on repositories.'}
      </p>
      {suspended.length > 0 && (
        <Notice>
          GitHub has suspended the installation of {suspended.map(visible).join(', ')}: its owner can lift that in the
          settings on GitHub.
        </Notice>
      )}
      {repositories.length > 0 && (
        <Repositories key={repositories.join(' ')} names={repositories} github={github} onClose={onClose} />
      )}
    </Frame>
  );
}

function Repositories({ names, github, onClose }: DialogProps & { names: string[]; github: System['github'] }) {
  const onDone = useConnected(onClose);
  const connected = connectedRepositories(github);
  const form = useNewForm<Record<string, boolean>, Connection>({
    initial: Object.fromEntries(names.map((name) => [name, names.length === 1 || connected.has(name.toLowerCase())])),
    bodyOf: (draft) => {
      const chosen = names.filter((name) => draft[name]);
      return {
        body: { repositories: chosen },
        problems: chosen.length ? {} : { [names[0] ?? '']: 'choose at least one repository' },
      };
    },
    create: (body) => connectGitHub(body as Schemas['GitHubConnectionBody']),
    onDone,
  });
  return (
    <FormBody form={form} id={FORM}>
      <FieldGroup>
        {names.map((name) => (
          <CheckField key={name} form={form} name={name} label={visible(name)} />
        ))}
      </FieldGroup>
    </FormBody>
  );
}

function useConnected(onClose: () => void) {
  const queries = useQueryClient();
  return (connection: Connection) => {
    void queries.invalidateQueries(); // its agents, sources and Secrets are new
    toast(`${connectedSentence(connection)} Label an issue with ai-implement.`);
    onClose();
  };
}
