import { useQuery } from '@tanstack/react-query';
import { useEffect } from 'react';

import { rememberNext, sessionQuery } from '../../api/session';
import { buttonClass } from '../../ui/button';
import { Copy } from '../../ui/copy';
import { Logo } from '../../ui/icons';
import styles from './login-page.module.css';

const COMMAND = 'labrats login-link';

/** Ways to sign in. The engine always returns to `/`, which then opens the page that was wanted. */
export function LoginPage({ next }: { next: string | undefined }) {
  const { data } = useQuery({ ...sessionQuery, refetchInterval: 3_000 });
  const isSignedIn = Boolean(data?.user);
  useEffect(() => {
    if (next) rememberNext(next);
  }, [next]);
  useEffect(() => {
    if (isSignedIn) window.location.replace('/');
  }, [isSignedIn]);
  return (
    <main className={styles.page}>
      <div className={styles.card}>
        <Logo size={36} />
        <h1>Sign in to Labrats</h1>
        <section>
          <h2>With a link</h2>
          <p>The engine prints a link when it starts. This command prints a new one, which works once within 15 minutes:</p>
          <div className={styles.command}>
            <code>{COMMAND}</code>
            <Copy text={COMMAND} name="Copy the command" />
          </div>
        </section>
        <section>
          <h2>With your organisation’s account</h2>
          <p>If the engine is connected to an OpenID provider, sign in there.</p>
          <a href="/api/auth/oidc" className={buttonClass('plain')}>Sign in with OpenID Connect</a>
        </section>
        <p className={styles.version}>{data && `Labrats ${data.version}`}</p>
      </div>
    </main>
  );
}
