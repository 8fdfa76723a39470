import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useCallback } from 'react';

import { agentQuery, changeAgent, readAgent, type Agent } from '../../api/agents';
import type { Schemas } from '../../api/client';
import { instructionsQuery } from '../../api/instructions';
import { agentsQuery } from '../../api/jobs';
import { Button, IconButton } from '../../ui/button';
import { ConfigFields } from '../../ui/config-fields';
import { Dialog } from '../../ui/dialog';
import {
  AddRow,
  ChangedMeanwhile,
  CheckField,
  FieldGroup,
  FormBody,
  SelectField,
  TextArea,
  TextField,
} from '../../ui/fields';
import { ReportFields } from '../../ui/report-fields';
import { toast } from '../../ui/toasts';
import { useEditor, type Form } from '../../ui/use-form';
import styles from './agent-page.module.css';
import {
  EMPTY_TRIGGER,
  TRIGGER_LABELS as LABELS,
  triggerBody,
  triggerDraft,
  triggerNames,
  withTrigger,
  type TriggerDraft,
} from './trigger-draft';
import { CONDITION_WORDS, ON_NEW_WORDS, POLICY_WORDS } from './words';

const FORM = 'trigger-form';

/** Add or change a trigger. index: its position; that after the last one adds a trigger. */
export function TriggerDialog({
  agent,
  index,
  agents,
  onClose,
}: {
  agent: Agent;
  index: number;
  agents: readonly Agent[];
  onClose: () => void;
}) {
  const queries = useQueryClient();
  const instructions = useQuery(instructionsQuery);
  const isNew = index >= agent.eventTriggers.length;
  const draftOf = useCallback((view: Agent) => triggerDraft(view.eventTriggers[index] ?? EMPTY_TRIGGER), [index]);
  const form = useEditor<Agent, TriggerDraft>({
    storedAs: `trigger.${agent.id}.${index}`,
    current: agent,
    draftOf,
    bodyOf: triggerBody,
    names: triggerNames(index),
    change: ({ resourceVersion, ...changes }, base) =>
      changeAgent(agent.id, {
        eventTriggers: withTrigger(base, index, changes),
        resourceVersion: resourceVersion as string,
      } satisfies Schemas['AgentPatch']),
    read: () => readAgent(agent.id),
    onSaved: (saved) => {
      queries.setQueryData(agentQuery(agent.id).queryKey, saved);
      void queries.invalidateQueries({ queryKey: agentsQuery.queryKey });
      toast('The trigger is saved.');
      onClose();
    },
  });
  const { draft } = form;
  const locals = (instructions.data?.instructions ?? []).filter((each) => each.scope === 'local');
  return (
    <Dialog
      title={isNew ? 'Add a trigger' : 'Change the trigger'}
      size="medium"
      onClose={onClose}
      footer={
        <>
          {form.isDirty && !isNew && (
            <Button kind="quiet" onClick={form.reset}>
              Discard changes
            </Button>
          )}
          <Button
            onClick={() => {
              form.reset();
              onClose();
            }}
          >
            Cancel
          </Button>
          <Button type="submit" form={FORM} kind="primary" isBusy={form.isBusy} disabled={!form.isDirty && !isNew}>
            Save trigger
          </Button>
        </>
      }
    >
      <FormBody form={form} id={FORM}>
        <ChangedMeanwhile form={form} labels={LABELS} />
        <FieldGroup title="Event">
          <TextArea
            form={form}
            name="events"
            label={LABELS.events}
            width="one"
            rows={3}
            isCode
            placeholder={'issues.labeled\nissues.*'}
            hint="One on each line; * matches any text."
          />
          <TextField
            form={form}
            name="source"
            label={LABELS.source}
            placeholder="github"
            suggestions={['github']}
            hint="Of the webhook source, or of the event that is sent to the API."
          />
          <Filters form={form} />
        </FieldGroup>
        <FieldGroup title="Task">
          <SelectField
            form={form}
            name="instruction"
            label={LABELS.instruction}
            width="whole"
            options={locals.map(
              (each) => [each.name, each.displayName ? `${each.name}: ${each.displayName}` : each.name] as const,
            )}
            none="Own text"
          />
          {draft.instruction === '' && (
            <TextArea
              form={form}
              name="instructionText"
              label={LABELS.instructionText}
              rows={4}
              placeholder="Implement the issue {{ payload.issue.title }}."
              hint="{{ payload.… }}, {{ event }} and {{ metadata.… }} are replaced by values of the event. Without a text, the prompt has the agent's instructions only."
            />
          )}
        </FieldGroup>
        <FieldGroup title="One run at a time">
          <TextField
            form={form}
            name="concurrencyKey"
            label={LABELS.concurrencyKey}
            placeholder="{{ repo }}#{{ number }}"
            hint="Jobs with the same key never run at the same time."
          />
          {draft.concurrencyKey !== '' && (
            <>
              <SelectField form={form} name="onNew" label={LABELS.onNew} options={ON_NEW_WORDS} />
              <TextField
                form={form}
                name="debounceSeconds"
                label={LABELS.debounceSeconds}
                isNumeric
                hint="Time for which a job waits for newer ones."
              />
            </>
          )}
        </FieldGroup>
        <FieldGroup title="Chain">
          <SelectField
            form={form}
            name="next"
            label={LABELS.next}
            options={agents
              .filter((each) => each.id !== agent.id || draft.allowCycles)
              .map((each) => [each.triggerName, each.name] as const)}
            none="None"
          />
          {draft.next !== '' && (
            <>
              <SelectField form={form} name="condition" label={LABELS.condition} options={CONDITION_WORDS} />
              {draft.condition === 'on-success' && (
                <SelectField form={form} name="failurePolicy" label={LABELS.failurePolicy} options={POLICY_WORDS} />
              )}
              <CheckField form={form} name="allowCycles" label="Allow an agent that already ran in this chain" />
            </>
          )}
        </FieldGroup>
        <FieldGroup title="Failed checks">
          <CheckField
            form={form}
            name="ciLoop"
            label="Repair failed checks of pull requests that the engine has opened"
            hint="For the events check_run.completed and workflow_run.completed from github."
          />
          {draft.ciLoop && (
            <>
              <TextField
                form={form}
                name="ciAttempts"
                label={LABELS.ciAttempts}
                isNumeric
                hint="One for each commit with failed checks."
              />
              <TextField
                form={form}
                name="ciLabel"
                label={LABELS.ciLabel}
                placeholder="None"
                hint="Added with a comment."
              />
            </>
          )}
        </FieldGroup>
        <ReportFields
          form={form}
          note="For jobs of this trigger. It takes precedence over the webhook source and the agent, key by key."
        />
        <ConfigFields
          form={form}
          title="Settings of its jobs"
          note="They take precedence over the defaults of the source, the agent and the engine."
        />
      </FormBody>
    </Dialog>
  );
}

function Filters({ form }: { form: Form<TriggerDraft> }) {
  const { filters } = form.draft;
  const change = (index: number, part: { path?: string; value?: string }) =>
    form.set(
      'filters',
      filters.map((each, at) => (at === index ? { ...each, ...part } : each)),
    );
  return (
    <div className={styles.filters}>
      {filters.map((filter, index) => (
        <div key={index} className={styles.filter}>
          <input
            aria-label={`Path of filter ${index + 1}`}
            value={filter.path}
            placeholder="label.name"
            spellCheck={false}
            autoComplete="off"
            onChange={(event) => change(index, { path: event.target.value })}
          />
          <input
            aria-label={`Value of filter ${index + 1}`}
            value={filter.value}
            placeholder={'ai-* or ["ai", "help"]'}
            spellCheck={false}
            autoComplete="off"
            onChange={(event) => change(index, { value: event.target.value })}
          />
          <IconButton
            icon="close"
            label={`Remove filter ${index + 1}`}
            onClick={() =>
              form.set(
                'filters',
                filters.filter((_, at) => at !== index),
              )
            }
          />
        </div>
      ))}
      <AddRow
        form={form}
        name="filters"
        hint="Paths in the event and the values that they must have: a text with *, a number, true, false, or a JSON list of them. All filters must hold."
        onAdd={() => form.set('filters', [...filters, { path: '', value: '' }])}
      >
        Add filter
      </AddRow>
    </div>
  );
}
