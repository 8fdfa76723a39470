import { useQuery } from '@tanstack/react-query';
import { useEffect } from 'react';

import { isOwnPath, issuerName, rememberNext, sessionQuery } from '../../api/session';
import { buttonClass } from '../../ui/button';
import { Copy } from '../../ui/copy';
import { Logo } from '../../ui/icons';
import { useTitle } from '../../ui/page';
import { Failure } from '../../ui/states';
import styles from './login-page.module.css';

const COMMAND = 'labrats login-link';

/** Ways to sign in. A link from the engine leads to `/`, which then opens the page that was wanted. */
export function LoginPage({ next, isLinkUsed }: { next: string | undefined; isLinkUsed: boolean }) {
  const { data, error, refetch } = useQuery({ ...sessionQuery, refetchInterval: 3_000 });
  useTitle('Sign in');
  const isSignedIn = Boolean(data?.user);
  useEffect(() => {
    if (next) rememberNext(next);
  }, [next]);
  useEffect(() => {
    // Not by `/`, which would take the remembered page from the tab in which the user has opened the link.
    if (isSignedIn) window.location.replace(next && isOwnPath(next) ? next : '/');
  }, [isSignedIn, next]);
  return (
    <main className={styles.page}>
      <div className={styles.card}>
        <Logo size={36} />
        <h1>Sign in to Labrats</h1>
        {isLinkUsed && <p role="alert">This link was used before, or has expired.</p>}
        {data?.signIn.oidc && (
          <section>
            <a
              href={`/api/auth/oidc${next && isOwnPath(next) ? `?next=${encodeURIComponent(next)}` : ''}`}
              className={buttonClass('primary')}
            >
              Sign in with {issuerName(data.signIn.oidc)}
            </a>
          </section>
        )}
        {data?.signIn.link && (
          <section>
            <p>
              The engine prints a link when it starts. This command prints a new one, which works once within 15
              minutes:
            </p>
            <div className={styles.command}>
              <code>{COMMAND}</code>
              <Copy text={COMMAND} name="Copy the command" />
            </div>
          </section>
        )}
        {error && <Failure error={error} onRetry={() => void refetch()} />}
        <p className={styles.version}>{data && `Labrats ${data.version}`}</p>
      </div>
    </main>
  );
}
