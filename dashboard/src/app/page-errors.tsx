import { Link, type ErrorComponentProps } from '@tanstack/react-router';

import { buttonClass } from '../ui/button';
import { Page } from '../ui/page';
import { Empty, Failure } from '../ui/states';

export function PageError({ error, reset }: ErrorComponentProps) {
  return (
    <Page title="Something failed">
      <Failure error={error} onRetry={reset} />
    </Page>
  );
}

export function PageNotFound() {
  return (
    <main>
      <Empty title="There is no such page" action={<Link to="/" className={buttonClass()}>Overview</Link>}>
        The address may be mistyped, or from another version of the dashboard.
      </Empty>
    </main>
  );
}
