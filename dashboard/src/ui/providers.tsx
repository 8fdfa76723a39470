import { useQuery } from '@tanstack/react-query';

import { systemQuery, type System } from '../api/keys';
import { visible } from '../lib/ansi';
import { Copy } from './copy';
import { Icon } from './icons';
import { Notice } from './notice';
import styles from './page.module.css';

export type Provider = System['providers'][number];

/** The providers of the engine, with what they need; none while they are unknown, or of an earlier engine. */
export function useProviders(): readonly Provider[] {
  const { data } = useQuery(systemQuery);
  return (data?.providers as Provider[] | undefined) ?? [];
}

/** Return whether no provider can run a job, except for the one that only plays an agent. */
export function canNoneRun(providers: readonly Provider[]): boolean {
  return providers.length > 0 && !providers.some(({ name, canRun }) => canRun && name !== 'mock');
}

/** Each provider: whether it can run jobs here, or else what it needs. */
export function ProviderList() {
  return (
    <ul className={styles.providers}>
      {useProviders().map((provider) => (
        <li key={provider.name}>
          <Icon name={provider.canRun ? 'check' : 'warning'} size={14} />
          <div>
            <strong>{provider.name}</strong> {provider.canRun ? 'can run jobs' : <Need provider={provider} />}
          </div>
        </li>
      ))}
    </ul>
  );
}

/** A warning about the chosen provider, or about all of them, if its jobs would fail. chosen: empty for the default. */
export function ProviderWarning({ chosen }: { chosen: string }) {
  const providers = useProviders();
  const provider = providers.find(({ name }) => name === chosen);
  if (provider && !provider.canRun)
    return (
      <Notice>
        Jobs of <strong>{provider.name}</strong> fail here: <Need provider={provider} />
      </Notice>
    );
  if (chosen || !canNoneRun(providers)) return null;
  return (
    <Notice>
      No provider can run a job so far, except for <code>mock</code>, which only plays an agent.
      <ProviderList />
    </Notice>
  );
}

function Need({ provider: { problem, command } }: { provider: Provider }) {
  return (
    <>
      {visible(problem ?? '')}
      {command && (
        <>
          {': '}
          <code>{visible(command)}</code> <Copy text={command} name="Copy the command" />
        </>
      )}
    </>
  );
}
