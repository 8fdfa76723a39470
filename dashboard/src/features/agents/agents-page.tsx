import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';

import { seedAgents, type Agent } from '../../api/agents';
import { agentsQuery } from '../../api/jobs';
import { useLive } from '../../api/live';
import { visible } from '../../lib/ansi';
import { counted } from '../../lib/format';
import { networkText, type NetworkRule } from '../../lib/network';
import { Changing } from '../../ui/access';
import { Button, buttonClass } from '../../ui/button';
import { Icon } from '../../ui/icons';
import { Notice } from '../../ui/notice';
import { useShortcuts } from '../../ui/shortcuts';
import { describe, Empty, Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { AgentFigures } from './agent-figures';
import { AgentSwitch } from './agent-switch';
import { AgentsLayout } from './agents-layout';
import styles from './agents-page.module.css';
import { TriggerWords } from './trigger-words';

const FIRST_TRIGGERS = 3;
const FIRST_HOSTS = 3;

export function AgentsPage() {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const { role } = useSearch({ from: '/app/agents' }); // of an agent that was looked for, and not found
  const agents = useQuery({ ...agentsQuery, staleTime: 2_000 });
  useLive([agentsQuery]);
  useShortcuts([{ keys: 'a', label: 'New agent', isChanging: true, run: () => void navigate({ to: '/agents/new' }) }]);
  const seed = useMutation({
    mutationFn: seedAgents,
    onSuccess: (seeded) =>
      toast(seeded === 0 ? 'All default agents exist already.' : `${counted(seeded, 'agent')} added.`),
    onError: (error) => toast(describe(error).message, 'error'),
    onSettled: () => queries.invalidateQueries({ queryKey: agentsQuery.queryKey }),
  });
  const addDefaults = (kind: 'plain' | 'primary') => (
    <Button isChanging kind={kind} isBusy={seed.isPending} onClick={() => seed.mutate()}>
      Add default agents
    </Button>
  );
  const list = agents.data?.agents;
  return (
    <AgentsLayout
      title="Agents"
      actions={
        list &&
        list.length > 0 && (
          <div className={styles.actions}>
            {addDefaults('plain')}
            <Changing>
              <Link to="/agents/new" className={buttonClass()}>
                <Icon name="plus" size={14} /> New agent
              </Link>
            </Changing>
          </div>
        )
      }
    >
      {role && <Notice>No agent has the trigger name “{visible(role)}”. It may have been removed or renamed.</Notice>}
      {agents.isLoadingError ? (
        <Failure error={agents.error} onRetry={() => void agents.refetch()} />
      ) : !list ? (
        <Loading rows={4} height={92} />
      ) : list.length === 0 ? (
        <Empty
          title="No agents"
          action={
            <div className={styles.actions}>
              {addDefaults('primary')}
              <Changing>
                <Link to="/agents/new" className={buttonClass()}>
                  New agent
                </Link>
              </Changing>
            </div>
          }
        >
          An agent starts jobs when events arrive, such as a labelled issue, and gives them instructions and settings.
          The default ones implement issues, review pull requests, triage, document and analyse errors.
        </Empty>
      ) : (
        <ul className={styles.agents}>
          {list.map((agent) => (
            <AgentCard key={agent.id} agent={agent} agents={list} />
          ))}
        </ul>
      )}
    </AgentsLayout>
  );
}

function AgentCard({ agent, agents }: { agent: Agent; agents: readonly Agent[] }) {
  const settings = [
    [agent.defaultProvider, agent.defaultModel].filter(Boolean).join('/'),
    agent.defaultEffort && `${agent.defaultEffort} effort`,
    containmentWords(agent),
    agent.triggerName !== agent.name && `known as ${agent.triggerName}`,
  ];
  const shown = agent.eventTriggers.slice(0, FIRST_TRIGGERS);
  return (
    <li className={styles.agent}>
      <header>
        <h2>
          <Link to="/agents/$id/triggers" params={{ id: agent.id }}>
            {visible(agent.name)}
          </Link>
        </h2>
        <span className={styles.settings}>{visible(settings.filter(Boolean).join(' · '))}</span>
        <AgentSwitch agent={agent} />
      </header>
      <AgentFigures role={agent.triggerName} />
      {agent.eventTriggers.length === 0 ? (
        <p className={styles.none}>No event starts it. Jobs can name it, and so can chains.</p>
      ) : (
        <ul>
          {shown.map((trigger, index) => (
            <li key={index}>
              <TriggerWords trigger={trigger} agents={agents} />
            </li>
          ))}
        </ul>
      )}
      {agent.eventTriggers.length > shown.length && (
        <p className={styles.none}>and {counted(agent.eventTriggers.length - shown.length, 'more trigger')}</p>
      )}
    </li>
  );
}

/** The network and the isolation of the jobs of an agent, such as `network npm, pypi · at least sandbox`. */
function containmentWords({ defaultNetwork: rule, defaultIsolation: level }: Agent): string {
  if (!rule && !level) return 'default network and isolation';
  return [
    rule ? `network ${shortened(rule)}` : 'default network',
    level ? `at least ${level}` : 'default isolation',
  ].join(' · ');
}

function shortened(rule: NetworkRule): string {
  if (typeof rule === 'string' || rule.allow.length <= FIRST_HOSTS + 1) return networkText(rule);
  return `${rule.allow.slice(0, FIRST_HOSTS).join(', ')} and ${rule.allow.length - FIRST_HOSTS} more`;
}
