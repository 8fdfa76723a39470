import { useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate } from '@tanstack/react-router';

import { createAgent, type Agent } from '../../api/agents';
import type { Schemas } from '../../api/client';
import { agentsQuery } from '../../api/jobs';
import { Button, buttonClass } from '../../ui/button';
import { FieldGroup, FormBody, TextField } from '../../ui/fields';
import { Page } from '../../ui/page';
import { toast } from '../../ui/toasts';
import { useNewForm } from '../../ui/use-form';
import { AGENT_NAMES, EMPTY_AGENT, newAgentBody, type NewAgentDraft } from './agent-draft';
import styles from './agent-page.module.css';
import { AgentFields, AgentReport } from './settings-tab';

export function NewAgentPage() {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const form = useNewForm<NewAgentDraft, Agent>({
    initial: EMPTY_AGENT,
    storedAs: 'new-agent',
    bodyOf: newAgentBody,
    names: AGENT_NAMES,
    create: (body, key) => createAgent(body as Schemas['AgentBody'], key),
    onDone: (created) => {
      void queries.invalidateQueries({ queryKey: agentsQuery.queryKey });
      toast(`${created.name} is created. Add the events that start it.`);
      void navigate({ to: '/agents/$id/triggers', params: { id: created.id } });
    },
  });
  return (
    <Page title="New agent">
      <div className={styles.form}>
        <FormBody
          form={form}
          footer={
            <div className={styles.bar}>
              <Button type="submit" kind="primary" isBusy={form.isBusy}>
                Create agent
              </Button>
              <Link to="/agents" className={buttonClass('quiet')} onClick={form.reset}>
                Cancel
              </Link>
            </div>
          }
        >
          <FieldGroup>
            <TextField
              form={form}
              name="name"
              label="Name"
              placeholder="ai-developer"
              hint="Lower-case letters, digits and dashes. It cannot be changed later."
            />
          </FieldGroup>
          <AgentFields form={form} />
          <AgentReport form={form} />
        </FormBody>
      </div>
    </Page>
  );
}
