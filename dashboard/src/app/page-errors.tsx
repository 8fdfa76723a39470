import { Link, useRouter, type ErrorComponentProps } from '@tanstack/react-router';
import { useEffect } from 'react';

import { ApiError, checkReachable } from '../api/client';
import { reconnectPause } from '../api/events';
import { buttonClass } from '../ui/button';
import { Page } from '../ui/page';
import { Failure } from '../ui/states';

/** The page could not be opened. Once the engine answers again, it is opened by itself. */
export function PageError({ error }: ErrorComponentProps) {
  const router = useRouter();
  const isTemporary = error instanceof ApiError && error.isTemporary;
  useEffect(() => {
    if (!isTemporary) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isStopped = false;
    const ask = (looks: number) => {
      if (isStopped) return;
      timer = setTimeout(() => {
        void checkReachable().then(() => router.invalidate(), () => undefined).finally(() => ask(looks + 1));
      }, reconnectPause(looks));
    };
    ask(0); // without the frame of the pages, nothing else asks the engine
    return () => {
      isStopped = true;
      clearTimeout(timer);
    };
  }, [isTemporary, router]);
  return (
    <Page title="Something failed">
      <Failure error={error} onRetry={() => void router.invalidate()} />
    </Page>
  );
}

export function PageNotFound() {
  return (
    <Page title="There is no such page" actions={<Link to="/" className={buttonClass()}>Overview</Link>}>
      <p>The address may be mistyped, or from another version of the dashboard.</p>
    </Page>
  );
}
