import { useQuery } from '@tanstack/react-query';
import { Link, Outlet, useNavigate, useParams } from '@tanstack/react-router';

import { agentQuery, type Agent } from '../../api/agents';
import { isMissing } from '../../api/client';
import { visible } from '../../lib/ansi';
import { Icon } from '../../ui/icons';
import { Page } from '../../ui/page';
import { useShortcuts } from '../../ui/shortcuts';
import { Empty, Failure, Loading } from '../../ui/states';
import { SubNav } from '../../ui/sub-nav';
import styles from './agent-page.module.css';
import { AgentSwitch } from './agent-switch';

const TABS = [
  ['triggers', 'Triggers'],
  ['instructions', 'Instructions'],
  ['test', 'Test'],
  ['jobs', 'Jobs'],
  ['settings', 'Settings'],
] as const;

export function AgentPage() {
  const { id } = useParams({ from: '/app/agents/$id' });
  const navigate = useNavigate();
  const agent = useQuery(agentQuery(id));
  const isRemoved = agent.data !== undefined && isMissing(agent.error);
  useShortcuts(
    TABS.map(([tab, label], index) => ({
      keys: String(index + 1),
      label,
      run: () => void navigate({ to: `/agents/$id/${tab}`, params: { id } }),
    })),
  );
  return (
    <>
      <Link to="/agents" className={styles.back}>
        <Icon name="chevronLeft" size={14} /> Agents
      </Link>
      <Page title={visible(id)} actions={agent.data && !isRemoved && <State agent={agent.data} />}>
        {!agent.isLoadingError && !isRemoved && (
          <SubNav label="Parts of the agent">
            {TABS.map(([tab, label]) => (
              <Link key={tab} to={`/agents/$id/${tab}`} params={{ id }} resetScroll={false}>
                {label}
              </Link>
            ))}
          </SubNav>
        )}
        {isRemoved ? (
          <Empty title="The agent was removed">It was removed while this page was open. Its jobs remain.</Empty>
        ) : agent.error && !agent.data ? (
          <Failure error={agent.error} onRetry={() => void agent.refetch()} />
        ) : agent.data ? (
          <Outlet />
        ) : (
          <Loading rows={5} height={48} />
        )}
      </Page>
    </>
  );
}

function State({ agent }: { agent: Agent }) {
  return (
    <span className={styles.state}>
      {agent.enabled ? 'On' : 'Off'} <AgentSwitch agent={agent} />
    </span>
  );
}

/** The agent of the page. The page shows its tabs only once it has been read. */
export function useAgent(): Agent {
  const { id } = useParams({ from: '/app/agents/$id' });
  const { data } = useQuery(agentQuery(id));
  if (!data) throw new Error('the agent is not loaded');
  return data;
}
