import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';

import { Page } from '../../ui/page';
import { SubNav } from '../../ui/sub-nav';

/** The frame of the pages about models and their files. */
export function ModelsLayout({ actions, children }: { actions?: ReactNode; children: ReactNode }) {
  return (
    <Page title="Models" actions={actions}>
      <SubNav label="Parts of the page">
        <Link to="/models" activeOptions={{ exact: true, includeSearch: false }}>
          Slots and queues
        </Link>
        <Link to="/models/files" activeOptions={{ includeSearch: false }}>
          Files
        </Link>
      </SubNav>
      {children}
    </Page>
  );
}
