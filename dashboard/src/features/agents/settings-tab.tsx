import { useQueryClient } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';

import { agentQuery, changeAgent, readAgent, removeAgent, type Agent } from '../../api/agents';
import { removeShown } from '../../api/changes';
import { EFFORTS, ISOLATIONS, PROVIDERS } from '../../api/config';
import { agentsQuery } from '../../api/jobs';
import { Changing } from '../../ui/access';
import { Button } from '../../ui/button';
import { Confirm } from '../../ui/confirm';
import { ChangedMeanwhile, FieldGroup, FormBody, SaveBar, SelectField, TextArea, TextField } from '../../ui/fields';
import { NetworkField } from '../../ui/network-field';
import { ReportFields, type ReportDraft } from '../../ui/report-fields';
import { SetupFields } from '../../ui/setup-fields';
import { toast } from '../../ui/toasts';
import { useEditor, type Form } from '../../ui/use-form';
import { VariableFields } from '../../ui/variable-fields';
import { AGENT_LABELS as LABELS, AGENT_NAMES, agentBody, agentDraft, type AgentDraft } from './agent-draft';
import { useAgent } from './agent-page';
import styles from './agent-page.module.css';

export function SettingsTab() {
  const agent = useAgent();
  const queries = useQueryClient();
  const navigate = useNavigate();
  const [isRemoving, setRemoving] = useState(false);
  const form = useEditor<Agent, AgentDraft>({
    storedAs: `agent.${agent.id}`,
    current: agent,
    draftOf: agentDraft,
    bodyOf: agentBody,
    names: AGENT_NAMES,
    change: (changes) => changeAgent(agent.id, changes),
    read: () => readAgent(agent.id),
    onSaved: (saved) => {
      queries.setQueryData(agentQuery(agent.id).queryKey, saved);
      void queries.invalidateQueries({ queryKey: agentsQuery.queryKey });
      toast(`${saved.name} is saved.`);
    },
  });
  return (
    <div className={styles.form}>
      <FormBody form={form} footer={<SaveBar form={form} />}>
        <ChangedMeanwhile form={form} labels={LABELS} />
        <AgentFields form={form} />
        <AgentReport form={form} />
      </FormBody>
      <Changing>
        <section className={styles.danger} aria-label="Remove the agent">
          <p>Removing the agent keeps its jobs and instructions.</p>
          <Button kind="danger" onClick={() => setRemoving(true)}>
            Remove agent…
          </Button>
        </section>
      </Changing>
      {isRemoving && (
        <Confirm
          title={`Remove ${agent.name}?`}
          action="Remove the agent"
          onClose={() => setRemoving(false)}
          run={() => removeShown(queries, agentQuery(agent.id).queryKey, () => removeAgent(agent.id))}
          onDone={async () => {
            form.reset();
            toast(`${agent.name} is removed.`);
            await navigate({ to: '/agents' });
            queries.removeQueries({ queryKey: agentQuery(agent.id).queryKey });
            await queries.invalidateQueries({ queryKey: agentsQuery.queryKey });
          }}
        >
          <p>Events no longer start it, and chains that continue with it end. Its jobs continue.</p>
        </Confirm>
      )}
    </div>
  );
}

/** The report of an agent's jobs. */
export function AgentReport({ form }: { form: Form<ReportDraft> }) {
  return (
    <ReportFields
      form={form}
      note="For all its jobs. Triggers, webhook sources and their repositories may set other keys."
    />
  );
}

/** The fields that new and existing agents have. */
export function AgentFields({ form }: { form: Form<AgentDraft> }) {
  return (
    <>
      <FieldGroup>
        <TextField
          form={form}
          name="triggerName"
          label={LABELS.triggerName}
          hint="Jobs, triggers and chains name the agent by it. Default: its name."
        />
      </FieldGroup>
      <FieldGroup
        title="Default settings of its jobs"
        note="A job, its trigger and its webhook source may set others."
        columns={3}
      >
        <SelectField
          form={form}
          name="defaultProvider"
          label={LABELS.defaultProvider}
          options={PROVIDERS}
          none="Not set"
        />
        <TextField form={form} name="defaultModel" label={LABELS.defaultModel} placeholder="Not set" />
        <SelectField form={form} name="defaultEffort" label={LABELS.defaultEffort} options={EFFORTS} none="Not set" />
        <NetworkField form={form} name="defaultNetwork" label={LABELS.defaultNetwork} none="Not set" />
        <SelectField
          form={form}
          name="defaultIsolation"
          label={LABELS.defaultIsolation}
          options={ISOLATIONS}
          none="Not set"
        />
      </FieldGroup>
      <FieldGroup title="Tools">
        <TextArea
          form={form}
          name="mcpServers"
          label={LABELS.mcpServers}
          rows={4}
          isCode
          placeholder={'{"docs": {"url": "https://mcp.example.com"}}'}
          hint="A JSON object: each name to the settings of its server. Only for jobs of Claude Code and Codex."
        />
        <VariableFields form={form} hint="For the agent, its tools and the setup commands." />
      </FieldGroup>
      <FieldGroup
        title="Preparation of the workspace"
        note="For jobs with a repository. A job may set other values."
        columns={4}
      >
        <SetupFields form={form} />
        {(form.draft.otherSetup !== '' || form.problems.otherSetup) && (
          <TextArea
            form={form}
            name="otherSetup"
            label={LABELS.otherSetup}
            rows={3}
            isCode
            hint="A JSON object with values that the fields above cannot show. The fields take precedence."
          />
        )}
      </FieldGroup>
      <FieldGroup title="Result">
        <TextArea
          form={form}
          name="resultSchema"
          label={LABELS.resultSchema}
          rows={4}
          isCode
          placeholder={
            '{"type": "object", "properties": {"conclusion": {"enum": ["success", "failure"]}}, "required": ["conclusion"]}'
          }
          hint="A JSON Schema. A job fails unless its result matches it."
        />
      </FieldGroup>
    </>
  );
}
