import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';

import { Changing } from '../../ui/access';
import { Page } from '../../ui/page';
import { SubNav } from '../../ui/sub-nav';

/** The frame of the pages of settings. */
export function SettingsLayout({ actions, children }: { actions?: ReactNode; children: ReactNode }) {
  return (
    <Page title="Settings" actions={actions}>
      <SubNav label="Parts of the settings">
        <Link to="/settings/defaults">Defaults</Link>
        <Changing>
          <Link to="/settings/keys" activeOptions={{ includeSearch: false }}>
            API keys
          </Link>
        </Changing>
        <Link to="/settings/system">System</Link>
      </SubNav>
      {children}
    </Page>
  );
}
