import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';

import { Page } from '../../ui/page';
import { SubNav } from '../../ui/sub-nav';

/** The frame of the lists of agents and instructions. */
export function AgentsLayout({
  title,
  actions,
  children,
}: {
  title: string;
  actions?: ReactNode;
  children: ReactNode;
}) {
  return (
    <Page title={title} actions={actions}>
      <SubNav label="Parts of the page">
        <Link to="/agents" activeOptions={{ exact: true }}>
          Agents
        </Link>
        <Link to="/instructions" activeOptions={{ exact: true }}>
          Instructions
        </Link>
      </SubNav>
      {children}
    </Page>
  );
}
