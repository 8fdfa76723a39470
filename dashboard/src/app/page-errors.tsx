import { Link, useRouter, type ErrorComponentProps } from '@tanstack/react-router';
import { useEffect } from 'react';

import { ApiError, onReachable } from '../api/client';
import { buttonClass } from '../ui/button';
import { Page } from '../ui/page';
import { Empty, Failure } from '../ui/states';

/** The page could not be opened. Once the engine answers again, it is opened by itself. */
export function PageError({ error }: ErrorComponentProps) {
  const router = useRouter();
  const isTemporary = error instanceof ApiError && error.isTemporary;
  useEffect(() => {
    if (!isTemporary) return;
    return onReachable((isReachable) => { if (isReachable) void router.invalidate(); });
  }, [isTemporary, router]);
  return (
    <Page title="Something failed">
      <Failure error={error} onRetry={() => void router.invalidate()} />
    </Page>
  );
}

export function PageNotFound() {
  return (
    <div>
      <Empty title="There is no such page" action={<Link to="/" className={buttonClass()}>Overview</Link>}>
        The address may be mistyped, or from another version of the dashboard.
      </Empty>
    </div>
  );
}
