import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';

import { agentInstructionsQuery, agentQuery, changeAgent, readAgent, type Agent } from '../../api/agents';
import { instructionsQuery } from '../../api/instructions';
import { visible, visibleLines } from '../../lib/ansi';
import { useMayChange } from '../../ui/access';
import { Button, IconButton } from '../../ui/button';
import { Field } from '../../ui/field';
import { ChangedMeanwhile, FormBody, SaveBar } from '../../ui/fields';
import { Panel } from '../../ui/page';
import { Empty, Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { useEditor } from '../../ui/use-form';
import { useAgent } from './agent-page';
import styles from './agent-page.module.css';

interface AssignedDraft {
  instructions: string[];
}

const draftOf = (agent: Agent): AssignedDraft => ({ instructions: agent.instructions });
const bodyOf = (draft: AssignedDraft) => ({ body: { ...draft }, problems: {} });

export function InstructionsTab() {
  const agent = useAgent();
  const queries = useQueryClient();
  const all = useQuery(instructionsQuery);
  const [chosen, setChosen] = useState('');
  const form = useEditor<Agent, AssignedDraft>({
    storedAs: `assigned.${agent.id}`,
    current: agent,
    draftOf,
    bodyOf,
    change: (changes) => changeAgent(agent.id, changes),
    read: () => readAgent(agent.id),
    onSaved: (saved) => {
      queries.setQueryData(agentQuery(agent.id).queryKey, saved);
      void queries.invalidateQueries({ queryKey: agentInstructionsQuery(agent.id).queryKey });
      toast('The instructions are saved.');
    },
  });
  const mayChange = useMayChange();
  const assigned = form.draft.instructions;
  const set = (instructions: string[]) => form.set('instructions', instructions);
  const move = (from: number, to: number) => set(assigned.toSpliced(from, 1).toSpliced(to, 0, assigned[from] ?? ''));
  const others = (all.data?.instructions ?? []).filter(
    (each) => each.scope === 'local' && !assigned.includes(each.name),
  );
  return (
    <div className={styles.list}>
      <FormBody form={form} footer={form.isDirty && <SaveBar form={form} />}>
        <ChangedMeanwhile form={form} labels={{ instructions: 'Instructions' }} />
        {all.isLoadingError && <Failure error={all.error} onRetry={() => void all.refetch()} />}
        {assigned.length > 0 ? (
          <ol className={styles.assigned} aria-label="Instructions of this agent">
            {assigned.map((name, index) => (
              <li key={name}>
                <Link to="/instructions/$id" params={{ id: name }}>
                  {name}
                </Link>
                <IconButton
                  isChanging
                  icon="arrowUp"
                  label={`Move ${name} up`}
                  disabled={index === 0}
                  onClick={() => move(index, index - 1)}
                />
                <IconButton
                  isChanging
                  icon="arrowDown"
                  label={`Move ${name} down`}
                  disabled={index === assigned.length - 1}
                  onClick={() => move(index, index + 1)}
                />
                <IconButton
                  isChanging
                  icon="close"
                  label={`Remove ${name}`}
                  onClick={() => set(assigned.filter((each) => each !== name))}
                />
              </li>
            ))}
          </ol>
        ) : (
          <p className={styles.none}>
            No instruction is assigned to this agent. Global ones apply all the same, and triggers may name others.
          </p>
        )}
        {others.length > 0 && mayChange && (
          <div className={styles.add}>
            <Field label="Add an instruction">
              {(ids) => (
                <select {...ids} name="instructions" value={chosen} onChange={(event) => setChosen(event.target.value)}>
                  <option value="">Choose one</option>
                  {others.map((each) => (
                    <option key={each.name} value={each.name}>
                      {each.displayName ? `${each.name}: ${each.displayName}` : each.name}
                    </option>
                  ))}
                </select>
              )}
            </Field>
            <Button
              disabled={!chosen}
              onClick={() => {
                set([...assigned, chosen]);
                setChosen('');
              }}
            >
              Add
            </Button>
          </div>
        )}
      </FormBody>
      <Preview agent={agent} />
    </div>
  );
}

/** The stored instructions as they begin a prompt. */
function Preview({ agent }: { agent: Agent }) {
  const resolved = useQuery(agentInstructionsQuery(agent.id));
  const list = resolved.data?.instructions ?? [];
  return (
    <Panel
      title="Beginning of its prompts"
      note={<span className={styles.none}>global by priority, then its own</span>}
    >
      {resolved.isLoadingError ? (
        <Failure error={resolved.error} onRetry={() => void resolved.refetch()} />
      ) : !resolved.data ? (
        <Loading rows={4} />
      ) : list.length === 0 ? (
        <Empty title="No instructions">Its prompts begin with the task of the trigger, or of the job.</Empty>
      ) : (
        <ol className={styles.preview}>
          {list.map((each) => (
            <li key={each.id}>
              <header>
                <h3>
                  <Link to="/instructions/$id" params={{ id: each.id }}>
                    {each.displayName ? visible(each.displayName) : each.name}
                  </Link>
                </h3>
                <span className={styles.scope}>{each.scope}</span>
              </header>
              <pre>{visibleLines(each.content)}</pre>
            </li>
          ))}
        </ol>
      )}
    </Panel>
  );
}
