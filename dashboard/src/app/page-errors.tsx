import { Link, useRouter, type ErrorComponentProps } from '@tanstack/react-router';
import { useEffect } from 'react';

import { ApiError, isFinal } from '../api/client';
import { reconnectPause } from '../api/events';
import { readSession } from '../api/session';
import { buttonClass } from '../ui/button';
import { Page } from '../ui/page';
import { Failure } from '../ui/states';

/** Failed openings of pages. Each shows the error anew, so that its component cannot count them. */
const failed = { count: 0, at: 0 };
/** The time after which a page that cannot be opened is another failure. */
const FORGET_MS = 60_000;

/** The page could not be opened. Once the engine answers again, it is opened by itself. */
export function PageError({ error }: ErrorComponentProps) {
  const router = useRouter();
  const isTemporary = error instanceof ApiError && error.isTemporary;
  useEffect(() => {
    if (!isTemporary) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isStopped = false;
    const ask = () => {
      if (isStopped) return;
      if (Date.now() - failed.at > FORGET_MS) failed.count = 0;
      timer = setTimeout(() => {
        failed.at = Date.now();
        failed.count++;
        void canOpen()
          .then((isOpen) => (isOpen ? router.invalidate() : undefined))
          .finally(ask);
      }, reconnectPause(failed.count));
    };
    ask(); // without the frame of the pages, nothing else asks the engine
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

/** Return whether a page can be opened, which needs the session. An answer that is final is shown by the page. */
async function canOpen(): Promise<boolean> {
  return readSession().then(() => true, isFinal);
}

export function PageNotFound() {
  return (
    <Page
      title="There is no such page"
      actions={
        <Link to="/" className={buttonClass()}>
          Overview
        </Link>
      }
    >
      <p>The address may be mistyped, or from another version of the dashboard.</p>
    </Page>
  );
}
