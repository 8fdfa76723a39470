/** The result of testing an event in words. */

import type { Agent, Trigger } from '../../api/agents';
import type {
  AgentVerdict,
  EventTested,
  IncomingEvent,
  ThreadRequest,
  TriggerVerdict,
} from '../../api/incoming-events';
import { filterText } from './trigger-draft';
import { listed } from './words';

/** Whether the event starts the agent, and why not if its triggers do not show that. */
export function outcomeInWords(
  verdict: AgentVerdict,
  { ignored, requests }: Pick<EventTested, 'ignored' | 'requests'>,
  webhookSource: string | null,
): string {
  if (requests.length > 0) return requests.map(requestInWords).join(' ');
  if (ignored !== null) return `${webhookSource ?? 'The webhook source'} would ignore the event: ${sentence(ignored)}`;
  if (verdict.refused !== null)
    return `The event would start this agent, but its job would be refused: ${sentence(verdict.refused)}`;
  const isMatched = verdict.triggers.some((trigger) => trigger.matches);
  if (verdict.starts && verdict.job?.failure)
    return `The event starts this agent, but its job would fail: ${sentence(verdict.job.failure)}`;
  if (verdict.starts)
    return isMatched
      ? 'The event starts this agent.'
      : `The event starts this agent: ${webhookSource ?? 'the webhook source'} sends all events of the repository to it.`;
  if (verdict.triggers.length === 0) return 'The event does not start this agent: it has no triggers.';
  if (!isMatched) return 'The event does not start this agent: no trigger matches.';
  return webhookSource === null
    ? 'The event does not start this agent: an older agent has the same trigger name.'
    : `The event does not start this agent: a trigger matches, but ${webhookSource} sends the events of the repository to another agent.`;
}

/** A command, reply or failed check, which the engine carries out instead of starting agents by triggers. */
function requestInWords({ action, agent, model, answer }: ThreadRequest): string {
  if (answer !== null) return `The engine would answer with a comment: ${answer}`;
  const ofAgent = agent === null ? '' : ` of ${agent}`;
  const onModel = model === null ? '' : ` on ${model}`;
  switch (action) {
    case 'cancel':
      return `The engine would cancel the jobs${ofAgent} of the thread.`;
    case 'retry':
      return model === null
        ? `The engine would retry the last job${ofAgent} of the thread.`
        : `The engine would run the last job${ofAgent} of the thread again${onModel}.`;
    case 'publish':
      return `The engine would write the report of the last job${ofAgent} of the thread again.`;
    case 'run':
      return `The engine would start ${agent ?? 'the agent'}${onModel}.`;
    case 'reply':
      return 'The engine would start a follow-up, if a job made the pull request.';
    case 'mention':
      return 'The engine would start a follow-up, if a job made the pull request, or else an agent.';
    case 'repair':
      return `The engine would let ${agent ?? 'the agent'} repair the checks, if a job made the pull request.`;
    case 'rerun':
      return 'The engine would run the job once more on the new head of its pull request.';
    case 'help':
      return 'The engine would answer with the list of commands.';
  }
}

/** Whether a trigger matches, or the first reason why it does not. */
export function verdictInWords(
  { mismatch, failedFilter }: TriggerVerdict,
  trigger: Trigger,
  agent: Pick<Agent, 'name'>,
  event: IncomingEvent,
): string {
  switch (mismatch) {
    case null:
      return 'Matches.';
    case 'source':
      return `Does not match: it takes events from ${trigger.source}, and this one is from ${event.source}.`;
    case 'event':
      return `Does not match: it takes ${listed(trigger.events, 'or')}, and this event is ${event.event}.`;
    case 'trigger_disabled':
      return 'Would match, but the trigger is off.';
    case 'agent_disabled':
      return `Would match, but ${agent.name} is off.`;
    case 'ci_loop':
      return 'Starts the agent only for failed checks of a pull request that the engine has opened.';
    case 'earlier_trigger':
      return 'Would match, but an earlier trigger starts the agent. An event starts an agent once.';
    case 'filter':
      return failedFilter
        ? `Does not match: ${filterFailureInWords(failedFilter)}`
        : 'Does not match: a filter does not hold.';
  }
}

function filterFailureInWords({ path, wanted, found }: NonNullable<TriggerVerdict['failedFilter']>): string {
  const values = Array.isArray(wanted) ? (wanted as unknown[]) : [wanted];
  const wants = values.length === 0 ? 'no value can match' : `the filter wants ${listed(values.map(shown), 'or')}`;
  return found.length === 0
    ? `the event has no ${path}; ${wants}.`
    : `${path} is ${listed(found.map(shown), 'and')}; ${wants}.`;
}

const SHOWN = 120;

/** A value of a payload or filter. Texts that read like other values are quoted. */
function shown(value: unknown): string {
  const text = value === '' ? '""' : filterText(value);
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}

function sentence(text: string): string {
  return text.endsWith('.') ? text : `${text}.`;
}
