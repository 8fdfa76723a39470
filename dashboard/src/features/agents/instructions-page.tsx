import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';

import type { Agent } from '../../api/agents';
import type { Schemas } from '../../api/client';
import { createInstruction, instructionsQuery, type Instruction } from '../../api/instructions';
import { agentsQuery } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { counted } from '../../lib/format';
import { Changing } from '../../ui/access';
import { Button } from '../../ui/button';
import { Dialog } from '../../ui/dialog';
import { FormBody } from '../../ui/fields';
import { Panel } from '../../ui/page';
import { useShortcuts } from '../../ui/shortcuts';
import { Empty, Failure, Loading } from '../../ui/states';
import { cell, Table } from '../../ui/table';
import { toast } from '../../ui/toasts';
import { useNewForm } from '../../ui/use-form';
import { AgentsLayout } from './agents-layout';
import {
  EMPTY_INSTRUCTION,
  firstParagraph,
  instructionBody,
  ordered,
  usesOf,
  type InstructionDraft,
} from './instruction-draft';
import { InstructionFields } from './instruction-fields';
import styles from './instructions-page.module.css';

export function InstructionsPage() {
  const navigate = useNavigate();
  const { create } = useSearch({ from: '/app/instructions' });
  const instructions = useQuery(instructionsQuery);
  const agents = useQuery(agentsQuery);
  const setCreating = (isCreating: boolean) =>
    void navigate({ to: '/instructions', search: isCreating ? { create: true } : {} });
  useShortcuts([{ keys: 'a', label: 'New instruction', isChanging: true, run: () => setCreating(true) }]);
  const lists = instructions.data && ordered(instructions.data.instructions);
  return (
    <AgentsLayout
      title="Instructions"
      actions={
        <Button isChanging icon="plus" onClick={() => setCreating(true)}>
          New instruction
        </Button>
      }
    >
      {instructions.isLoadingError ? (
        <Failure error={instructions.error} onRetry={() => void instructions.refetch()} />
      ) : !lists ? (
        <Loading rows={6} height={44} />
      ) : lists.global.length + lists.local.length === 0 && !agents.error ? (
        <Empty
          title="No instructions"
          action={
            <Button isChanging kind="primary" onClick={() => setCreating(true)}>
              New instruction
            </Button>
          }
        >
          An instruction is a text that becomes part of the prompts of agents: of every agent, or of those that name it.
        </Empty>
      ) : (
        <div className={styles.panels}>
          {agents.error && <Failure error={agents.error} onRetry={() => void agents.refetch()} />}
          {lists.global.length > 0 && (
            <Panel title="Global" note={<span className={styles.note}>for every agent, in this order</span>}>
              <Table label="Global" columns={[['Instruction'], ['Purpose', cell.minor], ['Priority', cell.number]]}>
                {lists.global.map((each) => (
                  <Row key={each.id} instruction={each} last={String(each.priority)} />
                ))}
              </Table>
            </Panel>
          )}
          {lists.local.length > 0 && (
            <Panel title="Local" note={<span className={styles.note}>for the agents and triggers that name them</span>}>
              <Table label="Local" columns={[['Instruction'], ['Purpose', cell.minor], ['Used by', cell.number]]}>
                {lists.local.map((each) => (
                  <Row key={each.id} instruction={each} last={usedBy(each, agents.data?.agents)} />
                ))}
              </Table>
            </Panel>
          )}
        </div>
      )}
      <Changing>{create && <NewInstruction onClose={() => setCreating(false)} />}</Changing>
    </AgentsLayout>
  );
}

function usedBy(instruction: Instruction, agents: readonly Agent[] | undefined): string {
  if (!agents) return '';
  const uses = usesOf(instruction.name, agents);
  return uses.length === 0
    ? 'no agent'
    : uses.length === 1
      ? (uses[0]?.agent.name ?? '')
      : counted(uses.length, 'agent');
}

function Row({ instruction, last }: { instruction: Instruction; last: string }) {
  return (
    <tr>
      <td className={cell.name}>
        <Link to="/instructions/$id" params={{ id: instruction.id }}>
          {instruction.displayName ? visible(instruction.displayName) : instruction.name}
        </Link>
        {instruction.displayName && <p className={styles.note}>{instruction.name}</p>}
      </td>
      <td className={cell.minor}>{visible(instruction.description || firstParagraph(instruction.content))}</td>
      <td className={cell.number}>{last}</td>
    </tr>
  );
}

const FORM = 'instruction-form';

function NewInstruction({ onClose }: { onClose: () => void }) {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const form = useNewForm<InstructionDraft, Instruction>({
    initial: EMPTY_INSTRUCTION,
    storedAs: 'new-instruction',
    bodyOf: instructionBody,
    create: (body, key) => createInstruction(body as Schemas['InstructionBody'], key),
    onDone: (created) => {
      void queries.invalidateQueries({ queryKey: instructionsQuery.queryKey });
      toast(`${created.name} is created.`);
      void navigate({ to: '/instructions/$id', params: { id: created.id } });
    },
  });
  return (
    <Dialog
      title="New instruction"
      size="medium"
      onClose={onClose}
      footer={
        <>
          <Button
            onClick={() => {
              form.reset();
              onClose();
            }}
          >
            Cancel
          </Button>
          <Button type="submit" form={FORM} kind="primary" isBusy={form.isBusy}>
            Create instruction
          </Button>
        </>
      }
    >
      <FormBody form={form} id={FORM}>
        <InstructionFields form={form} isNew rows={8} />
      </FormBody>
    </Dialog>
  );
}
