import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useParams } from '@tanstack/react-router';
import { useState } from 'react';

import { removeShown } from '../../api/changes';
import { ApiError, isMissing } from '../../api/client';
import {
  changeInstruction,
  instructionQuery,
  instructionsQuery,
  readInstruction,
  removeInstruction,
  type Instruction,
} from '../../api/instructions';
import { agentsQuery } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { Changing } from '../../ui/access';
import { Button } from '../../ui/button';
import { Confirm } from '../../ui/confirm';
import { ChangedMeanwhile, FormBody, SaveBar } from '../../ui/fields';
import { Icon } from '../../ui/icons';
import { Page, Panel } from '../../ui/page';
import { Empty, Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { useEditor } from '../../ui/use-form';
import agentStyles from './agent-page.module.css';
import {
  INSTRUCTION_LABELS,
  instructionBody,
  instructionDraft,
  usesInWords,
  usesOf,
  type InstructionDraft,
} from './instruction-draft';
import { InstructionFields } from './instruction-fields';
import styles from './instructions-page.module.css';

export function InstructionPage() {
  const { id } = useParams({ from: '/app/instructions/$id' });
  const instruction = useQuery(instructionQuery(id));
  return (
    <>
      <Link to="/instructions" className={agentStyles.back}>
        <Icon name="chevronLeft" size={14} /> Instructions
      </Link>
      <Page title={visible(id)}>
        {instruction.data && isMissing(instruction.error) ? (
          <Empty title="The instruction was removed">
            It was removed while this page was open. Jobs that have started keep its text.
          </Empty>
        ) : instruction.data ? (
          <Editor key={id} instruction={instruction.data} />
        ) : instruction.error ? (
          <Failure error={instruction.error} onRetry={() => void instruction.refetch()} />
        ) : (
          <Loading rows={8} height={36} />
        )}
      </Page>
    </>
  );
}

function Editor({ instruction }: { instruction: Instruction }) {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const [isRemoving, setRemoving] = useState(false);
  const form = useEditor<Instruction, InstructionDraft>({
    storedAs: `instruction.${instruction.id}`,
    current: instruction,
    draftOf: instructionDraft,
    bodyOf: instructionBody,
    change: (changes) => changeInstruction(instruction.id, changes),
    read: () => readInstruction(instruction.id),
    onSaved: (saved) => {
      queries.setQueryData(instructionQuery(instruction.id).queryKey, saved);
      void queries.invalidateQueries({ queryKey: instructionsQuery.queryKey });
      toast(`${saved.name} is saved.`);
    },
  });
  const removed = async () => {
    form.reset();
    toast(`${instruction.name} is removed.`);
    await navigate({ to: '/instructions' });
    queries.removeQueries({ queryKey: instructionQuery(instruction.id).queryKey });
    await queries.invalidateQueries({ queryKey: instructionsQuery.queryKey });
  };
  return (
    <div className={styles.columns}>
      <FormBody form={form} footer={<SaveBar form={form} />}>
        <ChangedMeanwhile form={form} labels={INSTRUCTION_LABELS} />
        <InstructionFields form={form} rows={20} />
      </FormBody>
      <div className={styles.side}>
        <Uses instruction={instruction} />
        <Changing>
          <section className={styles.danger} aria-label="Remove the instruction">
            <p>Jobs that have started keep its text.</p>
            <Button kind="danger" onClick={() => setRemoving(true)}>
              Remove instruction…
            </Button>
          </section>
        </Changing>
      </div>
      {isRemoving && <Removal instruction={instruction} onDone={removed} onClose={() => setRemoving(false)} />}
    </div>
  );
}

function Uses({ instruction }: { instruction: Instruction }) {
  const agents = useQuery(agentsQuery);
  const uses = usesOf(instruction.name, agents.data?.agents ?? []);
  return (
    <Panel title="Used by">
      {instruction.scope === 'global' && <p className={styles.pad}>Every agent, since it is global.</p>}
      {agents.isLoadingError ? (
        <Failure error={agents.error} onRetry={() => void agents.refetch()} />
      ) : !agents.data ? (
        <div className={styles.pad}>
          <Loading rows={2} />
        </div>
      ) : uses.length === 0 ? (
        instruction.scope === 'local' && <p className={styles.pad}>No agent and no trigger names it.</p>
      ) : (
        <ul className={styles.uses}>
          {uses.map(({ agent, by }) => (
            <li key={agent.id}>
              <Link to={by === 'agent' ? '/agents/$id/instructions' : '/agents/$id/triggers'} params={{ id: agent.id }}>
                {visible(agent.name)}
              </Link>
              {by === 'trigger' && ', in a trigger'}
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}

/** Removal asks again if the API refuses it because agents use the instruction. */
function Removal({
  instruction,
  onDone,
  onClose,
}: {
  instruction: Instruction;
  onDone: () => Promise<void>;
  onClose: () => void;
}) {
  const queries = useQueryClient();
  const agents = useQuery(agentsQuery);
  const [isUsed, setUsed] = useState(false);
  const run = async () => {
    try {
      await removeShown(queries, instructionQuery(instruction.id).queryKey, () =>
        removeInstruction(instruction.id, isUsed),
      );
      return true;
    } catch (error) {
      if (isUsed || !(error instanceof ApiError) || error.status !== 409) throw error;
      await agents.refetch();
      setUsed(true);
      return false;
    }
  };
  const uses = usesInWords(usesOf(instruction.name, agents.data?.agents ?? []));
  return (
    <Confirm
      title={`Remove ${instruction.name}?`}
      action={isUsed ? 'Remove it all the same' : 'Remove the instruction'}
      onClose={onClose}
      run={run}
      onDone={async (isRemoved) => {
        if (isRemoved) await onDone();
      }}
    >
      {isUsed ? (
        <p role="alert">
          It is used{uses && ` ${uses}`}. If it is removed all the same, those agents run without it, and a trigger that
          names it has only the name as its task.
        </p>
      ) : (
        <p>Its text is lost. Jobs that have started keep it.</p>
      )}
    </Confirm>
  );
}
