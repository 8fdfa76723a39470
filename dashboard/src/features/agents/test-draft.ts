/** The form of an event to test, and its examples. */

import type { Trigger } from '../../api/agents';
import type { Schemas } from '../../api/client';
import type { WebhookSource } from '../../api/sources';
import { parseJson } from '../../lib/json';
import { readStoredJson, writeStored } from '../../lib/storage';
import { Texts, type Problems } from '../../ui/use-form';

export interface TestDraft {
  source: string;
  event: string;
  /** A JSON object. */
  payload: string;
  /** The name of a webhook source; empty for none. */
  webhookSource: string;
  /** The recorded delivery that it began with, as in the URL; empty for none. */
  delivery: string;
}

export type TestBody = Omit<Schemas['EventTest'], 'agent'> & { payload: Record<string, unknown> };

export const EMPTY_TEST: TestDraft = { source: 'github', event: '', payload: '', webhookSource: '', delivery: '' };

export function testBody(draft: TestDraft): { body: TestBody; problems: Problems<TestDraft> } {
  const texts = new Texts(draft);
  const body = {
    source: texts.required('source') ?? '',
    event: texts.required('event') ?? '',
    payload: {},
    webhookSource: texts.text('webhookSource'),
  };
  if (texts.text('payload') === null) return { body, problems: texts.problems };
  const parsed = parseJson(draft.payload); // with its leading space, which counts for the line of an error
  if ('error' in parsed) texts.problems.payload = parsed.error;
  else if (isObject(parsed.value)) body.payload = parsed.value;
  else texts.problems.payload = 'must be a JSON object';
  return { body, problems: texts.problems };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The draft that tests a recorded delivery again. */
export function draftOf(
  { id, source, event, payload }: Pick<Schemas['DeliveryDetail'], 'id' | 'source' | 'event' | 'payload'>,
  webhookSource: string,
): TestDraft {
  return {
    source,
    event: event ?? '',
    payload: JSON.stringify(payload ?? {}, null, 2),
    webhookSource,
    delivery: `${webhookSource}/${id}`,
  };
}

/** The webhook source and the id in `?delivery=github/0659d1f5a2b3c49e107f`. */
export function deliveryInUrl(value: string | undefined): { source: string; id: string } | undefined {
  const [source, id, ...rest] = value?.split('/') ?? [];
  return source && id && rest.length === 0 ? { source, id } : undefined;
}

const STORED = 'labrats.tested-event';

/** The last event of this tab; undefined if there is none. */
export function storedTest(): TestDraft | undefined {
  const stored = readStoredJson('sessionStorage', STORED);
  if (!isObject(stored)) return undefined;
  const text = (name: keyof TestDraft) => (typeof stored[name] === 'string' ? stored[name] : EMPTY_TEST[name]);
  return {
    source: text('source'),
    event: text('event'),
    payload: text('payload'),
    webhookSource: text('webhookSource'),
    delivery: text('delivery'),
  };
}

/** Store the last event of this tab, unless it is too large for the browser. */
export function storeTest(draft: TestDraft): void {
  writeStored('sessionStorage', STORED, JSON.stringify(draft));
}

const REPOSITORY = {
  full_name: 'octocat/hello-world',
  clone_url: 'https://github.com/octocat/hello-world.git',
  default_branch: 'main',
};
const SENDER = { login: 'octocat', type: 'User' };

interface Example {
  label: string;
  event: string;
  payload: Record<string, unknown>;
}

/** An event that the first trigger of an agent waits for, with the payload of the example that fits. */
export function firstTest(triggers: readonly Pick<Trigger, 'source' | 'events'>[]): TestDraft {
  const [trigger] = triggers;
  if (!trigger) return EMPTY_TEST;
  const example =
    trigger.source === 'github' ? EXAMPLES.find(({ event }) => trigger.events.includes(event)) : undefined;
  const event = example?.event ?? trigger.events.find((each) => !each.includes('*')) ?? '';
  return { ...EMPTY_TEST, source: trigger.source, event, payload: example ? payloadText(example) : '' };
}

export function payloadText({ payload }: Example): string {
  return JSON.stringify(payload, null, 2);
}

/** The source of the events that a webhook source receives. */
export function eventSourceOf({ type, name }: Pick<WebhookSource, 'type' | 'name'>): string {
  return type === 'github' ? 'github' : name;
}

/** Events of GitHub, shortened to the fields that triggers and instructions usually read. */
export const EXAMPLES: readonly Example[] = [
  {
    label: 'Labelled issue',
    event: 'issues.labeled',
    payload: {
      action: 'labeled',
      label: { name: 'ai-implement' },
      issue: {
        number: 7,
        title: 'Fix the flaky login test',
        body: 'It fails about once in ten runs.',
        html_url: 'https://github.com/octocat/hello-world/issues/7',
        user: SENDER,
        author_association: 'OWNER',
        labels: [{ name: 'bug' }, { name: 'ai-implement' }],
      },
      repository: REPOSITORY,
      sender: SENDER,
    },
  },
  {
    label: 'Opened pull request',
    event: 'pull_request.opened',
    payload: {
      action: 'opened',
      number: 8,
      pull_request: {
        number: 8,
        title: 'Wait for the session before signing in',
        body: 'Closes #7.',
        html_url: 'https://github.com/octocat/hello-world/pull/8',
        user: SENDER,
        author_association: 'OWNER',
        state: 'open',
        draft: false,
        head: { ref: 'fix-login', sha: '6dcb09b5b57875f334f61aebed695e2e4193db5e', repo: REPOSITORY },
        base: { ref: 'main', repo: REPOSITORY },
      },
      repository: REPOSITORY,
      sender: SENDER,
    },
  },
];
