import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';

import { agentQuery, changeAgent, readAgent, type Agent, type Trigger } from '../../api/agents';
import type { Schemas } from '../../api/client';
import { agentsQuery } from '../../api/jobs';
import { changeField } from '../../api/versions';
import { visible, visibleLines } from '../../lib/ansi';
import { configInWords } from '../../lib/job-config';
import { Button, IconButton } from '../../ui/button';
import { Confirm } from '../../ui/confirm';
import { describe, Empty } from '../../ui/states';
import { Switch } from '../../ui/switch';
import { toast } from '../../ui/toasts';
import { forgetDrafts } from '../../ui/use-form';
import { useAgent } from './agent-page';
import styles from './agent-page.module.css';
import { TriggerDialog } from './trigger-dialog';
import { TriggerWords } from './trigger-words';
import { eventsInWords, isInstructionName } from './words';

export function TriggersTab() {
  const agent = useAgent();
  const agents = useQuery(agentsQuery);
  const [edited, setEdited] = useState<number>();
  const triggers = agent.eventTriggers;
  const add = (
    <Button
      isChanging
      icon="plus"
      kind={triggers.length === 0 ? 'primary' : 'plain'}
      onClick={() => setEdited(triggers.length)}
    >
      Add trigger
    </Button>
  );
  return (
    <>
      {triggers.length === 0 ? (
        <Empty title="No event starts this agent" action={add}>
          Jobs can still name it as `{visible(agent.triggerName)}`, and chains can continue with it. A trigger starts a
          job for each event that matches.
        </Empty>
      ) : (
        <>
          <div className={styles.bar}>
            <p>The first trigger that matches an event starts a job.</p>
            {add}
          </div>
          <ul className={styles.list}>
            {triggers.map((trigger, index) => (
              <TriggerCard
                key={index}
                agent={agent}
                index={index}
                trigger={trigger}
                agents={agents.data?.agents}
                onEdit={() => setEdited(index)}
              />
            ))}
          </ul>
        </>
      )}
      {edited !== undefined && (
        <TriggerDialog
          agent={agent}
          index={edited}
          agents={agents.data?.agents ?? []}
          onClose={() => setEdited(undefined)}
        />
      )}
    </>
  );
}

function TriggerCard({
  agent,
  index,
  trigger,
  agents,
  onEdit,
}: {
  agent: Agent;
  index: number;
  trigger: Trigger;
  agents: readonly Agent[] | undefined;
  onEdit: () => void;
}) {
  const queries = useQueryClient();
  const [isRemoving, setRemoving] = useState(false);
  const name = eventsInWords(trigger);
  const store = (saved: Agent) => {
    queries.setQueryData(agentQuery(agent.id).queryKey, saved);
    void queries.invalidateQueries({ queryKey: agentsQuery.queryKey });
  };
  const send = (triggers: Trigger[]) =>
    changeField(
      agent,
      'eventTriggers',
      triggers,
      (changes) => changeAgent(agent.id, changes as Schemas['AgentPatch']),
      () => readAgent(agent.id),
    );
  const toggle = useMutation({
    mutationFn: (enabled: boolean) =>
      send(agent.eventTriggers.map((each, at) => (at === index ? { ...each, enabled } : each))),
    onSuccess: store,
    onError: (error) => {
      toast(describe(error).message, 'error');
      void queries.invalidateQueries({ queryKey: agentQuery(agent.id).queryKey });
    },
  });
  const config = configInWords(trigger.config);
  return (
    <li className={styles.trigger}>
      <div className={styles.triggerHead}>
        <TriggerWords trigger={trigger} agents={agents} />
        <Switch
          label={`The trigger for ${name} is enabled`}
          isOn={toggle.isPending ? toggle.variables : trigger.enabled}
          isBusy={toggle.isPending}
          onChange={toggle.mutate}
        />
        <IconButton isChanging icon="pencil" label={`Edit the trigger for ${name}`} onClick={onEdit} />
        <IconButton
          isChanging
          icon="trash"
          label={`Remove the trigger for ${name}`}
          onClick={() => setRemoving(true)}
        />
      </div>
      <dl className={styles.facts}>
        {trigger.instruction !== null && (
          <div>
            <dt>Instruction</dt>
            <dd>
              {isInstructionName(trigger.instruction) ? (
                <Link to="/instructions/$id" params={{ id: trigger.instruction }}>
                  {trigger.instruction}
                </Link>
              ) : (
                <span className={styles.text}>{visibleLines(trigger.instruction)}</span>
              )}
            </dd>
          </div>
        )}
        {config && (
          <div>
            <dt>Settings</dt>
            <dd>{visible(config)}</dd>
          </div>
        )}
      </dl>
      {isRemoving && (
        <Confirm
          title="Remove this trigger?"
          action="Remove the trigger"
          onClose={() => setRemoving(false)}
          run={async () => store(await send(agent.eventTriggers.filter((_, at) => at !== index)))}
          onDone={() => {
            forgetDrafts(`trigger.${agent.id}.`);
            setRemoving(false);
          }}
        >
          <p>The agent no longer starts for {visible(name)}. Its jobs continue.</p>
        </Confirm>
      )}
    </li>
  );
}
