import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';

import type { Schemas } from '../../api/client';
import { grantIn, isOwnPath, issuerName, rememberedPage, rememberNext, sessionQuery, signIn } from '../../api/session';
import { buttonClass } from '../../ui/button';
import { Copy } from '../../ui/copy';
import { Logo } from '../../ui/icons';
import { useTitle } from '../../ui/page';
import { Failure } from '../../ui/states';
import styles from './login-page.module.css';

const COMMAND = 'labrats login-link';

/**
 * Ways to sign in. The engine redirects browsers with a link or a response of the OpenID provider to this page, which
 * then signs in and opens the page that was wanted.
 */
export function LoginPage({ next }: { next: string | undefined }) {
  const queries = useQueryClient();
  const [grant] = useState(() => grantIn(window.location.hash));
  // Another tab, which waits for the sign-in, may open the page and forget it meanwhile.
  const [remembered] = useState(() => grant && rememberedPage());
  const wanted = next && isOwnPath(next) ? next : (remembered ?? '/');
  const signingIn = useQuery({
    queryKey: ['sign-in', grant],
    queryFn: async () => {
      if (!grant) return null;
      window.history.replaceState(window.history.state, '', window.location.pathname + window.location.search);
      await signIn(grant);
      await queries.invalidateQueries(sessionQuery);
      return null;
    },
    enabled: grant !== undefined,
    staleTime: Infinity,
    retry: false, // the engine may have used up a link whose answer was lost
    refetchOnWindowFocus: false,
  });
  const { data, error, refetch } = useQuery({ ...sessionQuery, refetchInterval: 3_000 });
  useTitle('Sign in');
  const isSignedIn = Boolean(data?.user) && !signingIn.isFetching;
  useEffect(() => {
    if (next) rememberNext(next);
  }, [next]);
  useEffect(() => {
    if (isSignedIn) window.location.replace(wanted);
  }, [isSignedIn, wanted]);
  return (
    <main className={styles.page}>
      <div className={styles.card}>
        <Logo size={36} />
        <h1>Sign in to Labrats</h1>
        {signingIn.error && <Failure error={signingIn.error} onRetry={() => void signingIn.refetch()} />}
        {signingIn.isFetching ? (
          <p role="status">Signing in …</p>
        ) : (
          data && <SignInOptions signIn={data.signIn} next={next} />
        )}
        {error && <Failure error={error} onRetry={() => void refetch()} />}
        <p className={styles.version}>{data && `Labrats ${data.version}`}</p>
      </div>
    </main>
  );
}

function SignInOptions({ signIn: { oidc, link }, next }: { signIn: Schemas['SignIn']; next: string | undefined }) {
  return (
    <>
      {oidc && (
        <section>
          <a
            href={`/api/auth/oidc${next && isOwnPath(next) ? `?next=${encodeURIComponent(next)}` : ''}`}
            className={buttonClass('primary')}
          >
            Sign in with {issuerName(oidc)}
          </a>
        </section>
      )}
      {link && (
        <section>
          <p>
            The engine prints a link when it starts. This command prints a new one, which works once within 15 minutes:
          </p>
          <div className={styles.command}>
            <code>{COMMAND}</code>
            <Copy text={COMMAND} name="Copy the command" />
          </div>
        </section>
      )}
    </>
  );
}
