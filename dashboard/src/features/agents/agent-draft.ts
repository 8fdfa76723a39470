/** The form of an agent's own settings. */

import type { Agent } from '../../api/agents';
import { networkRule, networkText } from '../../lib/network';
import {
  EMPTY_SETUP,
  SETUP_LABELS,
  SETUP_NAMES,
  setupDraft,
  setupOf,
  unshownSetup,
  type SetupDraft,
} from '../../lib/setup';
import { variableDrafts, type VariableDraft } from '../../lib/variables';
import { REPORT_LABELS, reportText, type ReportDraft } from '../../ui/report-fields';
import { Texts, type Body, type Problems } from '../../ui/use-form';

/** otherSetup: a JSON object with the parts of the preparation that their fields cannot show. */
export interface AgentDraft extends ReportDraft, SetupDraft {
  triggerName: string;
  defaultProvider: string;
  defaultModel: string;
  defaultEffort: string;
  defaultNetwork: string;
  defaultIsolation: string;
  mcpServers: string;
  env: VariableDraft[];
  otherSetup: string;
  resultSchema: string;
}

export const AGENT_LABELS: Record<keyof AgentDraft, string> = {
  ...REPORT_LABELS,
  ...SETUP_LABELS,
  triggerName: 'Trigger name',
  defaultProvider: 'Provider',
  defaultModel: 'Model',
  defaultEffort: 'Effort',
  defaultNetwork: 'Network',
  defaultIsolation: 'Isolation, at least',
  mcpServers: 'MCP servers',
  env: 'Environment variables',
  otherSetup: 'Other parts of the preparation',
  resultSchema: 'Result schema',
};

/** Fields of the form by the field of the API, where the names differ. */
export const AGENT_NAMES: Readonly<Record<string, keyof AgentDraft>> = { ...SETUP_NAMES, workspaceSetup: 'otherSetup' };

export function agentDraft(agent: Agent): AgentDraft {
  const unshown = unshownSetup(agent.workspaceSetup ?? {});
  const isShown = ([name]: [string, unknown]) => !(name in unshown);
  return {
    ...setupDraft(Object.fromEntries(Object.entries(agent.workspaceSetup ?? {}).filter(isShown))),
    triggerName: agent.triggerName,
    defaultProvider: agent.defaultProvider ?? '',
    defaultModel: agent.defaultModel ?? '',
    defaultEffort: agent.defaultEffort ?? '',
    defaultNetwork: agent.defaultNetwork ? networkText(agent.defaultNetwork) : '',
    defaultIsolation: agent.defaultIsolation ?? '',
    mcpServers: 'mcpServers' in agent ? JSON.stringify(agent.mcpServers, null, 2) : '',
    env: variableDrafts(agent.env),
    otherSetup: Object.keys(unshown).length > 0 ? JSON.stringify(unshown, null, 2) : '',
    resultSchema: 'resultSchema' in agent ? JSON.stringify(agent.resultSchema, null, 2) : '',
    report: reportText(agent.report),
  };
}

export function agentBody(draft: AgentDraft): { body: Body; problems: Problems<AgentDraft> } {
  const texts = new Texts(draft);
  const own = Object.entries(setupOf(draft, texts)).filter(([, value]) => value !== null);
  const setup = { ...texts.json('otherSetup'), ...Object.fromEntries(own) };
  const body = {
    triggerName: texts.required('triggerName'),
    defaultProvider: texts.text('defaultProvider'),
    defaultModel: texts.text('defaultModel'),
    defaultEffort: texts.text('defaultEffort'),
    defaultNetwork: networkRule(draft.defaultNetwork),
    defaultIsolation: texts.text('defaultIsolation'),
    mcpServers: texts.json('mcpServers'),
    env: texts.variables('env'),
    workspaceSetup: Object.keys(setup).length > 0 ? setup : null,
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
  env: [],
  ...EMPTY_SETUP,
  otherSetup: '',
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
