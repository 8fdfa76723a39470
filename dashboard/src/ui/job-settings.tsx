/** The resolved settings of a job and the preparation of its workspace, in words. */

import { visible, visibleLines } from '../lib/ansi';
import { span } from '../lib/format';
import { networkText, type NetworkRule } from '../lib/network';
import { commandsText, SETUP_LABELS, type Setup } from '../lib/setup';
import type { SecretKey, Variables } from '../lib/variables';
import { JsonTree } from './json-tree';

/** Names of settings in words; others appear as the API writes them. */
const NAMES: Record<string, string> = {
  provider: 'Provider',
  model: 'Model',
  effort: 'Effort',
  fast: 'Fast mode',
  timeoutMs: 'Time limit',
  maxTurns: 'Turns at most',
  maxAttempts: 'Attempts at most',
  maxCostUsd: 'Cost at most',
  maxTokens: 'Tokens at most',
  fallbackModel: 'Fallback model',
  executorImage: 'Executor image',
  executorResources: 'Resources',
  reactEnabled: 'Tool loop',
  mcpServers: 'MCP servers',
  env: 'Environment variables',
  network: 'Network',
  isolation: 'Isolation, at least',
  sampling: 'Sampling',
};

export function settingName(name: string): string {
  return NAMES[name] ?? name;
}

/** The settings of a job by name. The network of a job without a rule is open. */
export function settingsOf(config: object): [name: string, value: unknown][] {
  return Object.entries('network' in config ? config : { ...config, network: 'open' });
}

export function SettingValue({ name, value }: { name: string; value: unknown }) {
  if (name === 'network') return visible(networkText(value as NetworkRule));
  if (name === 'env') return <VariableList variables={value as Variables} />;
  if (typeof value === 'object') return <JsonTree value={value} />;
  if (name === 'timeoutMs') return span(Number(value));
  if (name === 'maxCostUsd') return `$${Number(value)}`;
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  return typeof value === 'string' ? visible(value) : JSON.stringify(value);
}

/** Variables with their texts. Of a value of a Secret, only its place is known. */
function VariableList({ variables }: { variables: Variables }) {
  const entries = Object.entries(variables);
  if (entries.length === 0) return 'none';
  return entries.map(([name, value]) => (
    <div key={name}>
      <code>{visible(name)}</code> {typeof value === 'string' ? <VariableText text={value} /> : placeOf(value)}
    </div>
  ));
}

function VariableText({ text }: { text: string }) {
  return (
    <>
      = <code>{visibleLines(text)}</code>
    </>
  );
}

function placeOf({ secret, key }: SecretKey): string {
  return `from the key ${visible(key)} of the Secret ${visible(secret)}`;
}

/** The preparation of a workspace, as parts of a list of facts. */
export function SetupFacts({ setup }: { setup: Setup }) {
  const { setup: commands, setupTimeoutMs: limit, setupNetwork: network, cache } = setup;
  return (
    <>
      {commands && commands.length > 0 && (
        <div>
          <dt>{SETUP_LABELS.setup}</dt>
          <dd>
            {commands.map((words, number) => (
              <div key={number}>
                <code>{visibleLines(commandsText([words]))}</code>
              </div>
            ))}
          </dd>
        </div>
      )}
      {limit != null && (
        <div>
          <dt>Time of the commands</dt>
          <dd>{span(limit)}</dd>
        </div>
      )}
      {network && (
        <div>
          <dt>{SETUP_LABELS.setupNetwork}</dt>
          <dd>{visible(networkText(network))}</dd>
        </div>
      )}
      {cache && cache.length > 0 && (
        <div>
          <dt>{SETUP_LABELS.cache}</dt>
          <dd>{visible(cache.map(({ key, path }) => `${path}, by ${key}`).join('; '))}</dd>
        </div>
      )}
    </>
  );
}
