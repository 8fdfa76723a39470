import { useMutation, useQueryClient } from '@tanstack/react-query';

import { agentQuery, changeAgent, readAgent, type Agent } from '../../api/agents';
import { agentsQuery } from '../../api/jobs';
import { changeField } from '../../api/versions';
import { describe } from '../../ui/states';
import { Switch } from '../../ui/switch';
import { toast } from '../../ui/toasts';

export function AgentSwitch({ agent }: { agent: Agent }) {
  const queries = useQueryClient();
  const change = useMutation({
    mutationFn: (enabled: boolean) =>
      changeField(
        agent,
        'enabled',
        enabled,
        (changes) => changeAgent(agent.id, changes),
        () => readAgent(agent.id),
      ),
    onSuccess: (saved) => toast(saved.enabled ? `${saved.name} is on.` : `${saved.name} is off: it starts no jobs.`),
    onError: (error) => toast(describe(error).message, 'error'),
    onSettled: () =>
      Promise.all([
        queries.invalidateQueries({ queryKey: agentsQuery.queryKey }),
        queries.invalidateQueries({ queryKey: agentQuery(agent.id).queryKey, exact: true }),
      ]),
  });
  return (
    <Switch
      label={`${agent.name} is enabled`}
      isOn={change.isPending ? change.variables : agent.enabled}
      isBusy={change.isPending}
      onChange={change.mutate}
    />
  );
}
