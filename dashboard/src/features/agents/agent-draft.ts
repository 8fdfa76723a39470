/** The form of an agent's own settings. */

import type { Agent } from '../../api/agents';
import { networkRule, networkText } from '../../lib/network';
import { REPORT_LABELS, reportText, type ReportDraft } from '../../ui/report-fields';
import { Texts, type Body, type Problems } from '../../ui/use-form';

export interface AgentDraft extends ReportDraft {
  triggerName: string;
  defaultProvider: string;
  defaultModel: string;
  defaultEffort: string;
  defaultNetwork: string;
  defaultIsolation: string;
  mcpServers: string;
  env: string;
  workspaceSetup: string;
  resultSchema: string;
}

export const AGENT_LABELS: Record<keyof AgentDraft, string> = {
  ...REPORT_LABELS,
  triggerName: 'Trigger name',
  defaultProvider: 'Provider',
  defaultModel: 'Model',
  defaultEffort: 'Effort',
  defaultNetwork: 'Network',
  defaultIsolation: 'Isolation, at least',
  mcpServers: 'MCP servers',
  env: 'Environment variables',
  workspaceSetup: 'Preparation of the workspace',
  resultSchema: 'Result schema',
};

export function agentDraft(agent: Agent): AgentDraft {
  return {
    triggerName: agent.triggerName,
    defaultProvider: agent.defaultProvider ?? '',
    defaultModel: agent.defaultModel ?? '',
    defaultEffort: agent.defaultEffort ?? '',
    defaultNetwork: agent.defaultNetwork ? networkText(agent.defaultNetwork) : '',
    defaultIsolation: agent.defaultIsolation ?? '',
    mcpServers: 'mcpServers' in agent ? JSON.stringify(agent.mcpServers, null, 2) : '',
    env: 'env' in agent ? JSON.stringify(agent.env, null, 2) : '',
    workspaceSetup: 'workspaceSetup' in agent ? JSON.stringify(agent.workspaceSetup, null, 2) : '',
    resultSchema: 'resultSchema' in agent ? JSON.stringify(agent.resultSchema, null, 2) : '',
    report: reportText(agent.report),
  };
}

export function agentBody(draft: AgentDraft): { body: Body; problems: Problems<AgentDraft> } {
  const texts = new Texts(draft);
  const body = {
    triggerName: texts.required('triggerName'),
    defaultProvider: texts.text('defaultProvider'),
    defaultModel: texts.text('defaultModel'),
    defaultEffort: texts.text('defaultEffort'),
    defaultNetwork: networkRule(draft.defaultNetwork),
    defaultIsolation: texts.text('defaultIsolation'),
    mcpServers: texts.json('mcpServers'),
    env: texts.json('env'),
    workspaceSetup: texts.json('workspaceSetup'),
    resultSchema: texts.json('resultSchema'),
    report: texts.json('report'),
  };
  return { body, problems: texts.problems };
}

export interface NewAgentDraft extends AgentDraft {
  name: string;
}

export const EMPTY_AGENT: NewAgentDraft = {
  name: '',
  triggerName: '',
  defaultProvider: '',
  defaultModel: '',
  defaultEffort: '',
  defaultNetwork: '',
  defaultIsolation: '',
  mcpServers: '',
  env: '',
  workspaceSetup: '',
  resultSchema: '',
  report: '',
};

/** The body of a new agent. Without a trigger name, the API uses its name. */
export function newAgentBody(draft: NewAgentDraft): { body: Body; problems: Problems<NewAgentDraft> } {
  const { body, problems } = agentBody({ ...draft, triggerName: draft.triggerName || draft.name });
  return {
    body: { name: draft.name.trim(), ...body },
    problems: draft.name.trim() === '' ? { ...problems, triggerName: undefined, name: 'is required' } : problems,
  };
}
