/** Sentences about failures, shared by all pages. */

import type { FailedCode } from '../api/jobs';

interface Explanation {
  meaning: string;
  /** The next step that usually helps. */
  advice: string;
}

const EXPLANATIONS: Record<FailedCode, Explanation> = {
  auth: { meaning: 'Credentials are missing or were refused.', advice: 'Check them, then retry.' },
  quota: {
    meaning: 'The account at the provider has no quota left.',
    advice: 'Raise the quota of the account, or use another model.',
  },
  model_not_found: {
    meaning: 'The provider has no model of this name.',
    advice: 'Check the name of the model, then run the job again.',
  },
  rate_limited: { meaning: 'The provider limits the rate of requests.', advice: 'Retry later, or use another model.' },
  overloaded: { meaning: 'The provider is overloaded.', advice: 'Retry later, or set a fallback model.' },
  context_too_long: {
    meaning: 'The conversation outgrew the context of the model.',
    advice: 'Use a model with a larger context, or split the task.',
  },
  max_turns: {
    meaning: 'The agent used all its turns.',
    advice: 'Run it again with more turns, or split the task.',
  },
  budget: { meaning: 'The limit on cost or tokens was reached.', advice: 'Run it again with a higher limit.' },
  output_limit: {
    meaning: 'The attempt printed more output than it may.',
    advice: 'Let the agent write large output to files.',
  },
  process_limit: {
    meaning: 'The attempt had more processes than it may.',
    advice: 'Let the agent start fewer at once, or raise LABRATS_AGENT_PROCESSES.',
  },
  disk_limit: {
    meaning: 'The workspace took more disk than it may.',
    advice: 'Raise LABRATS_WORKSPACE_GIB, or let the agent write less.',
  },
  timeout: { meaning: 'The attempt took longer than its time limit.', advice: 'Run it again with more time.' },
  start_timeout: {
    meaning: 'The attempt did not start in time.',
    advice: 'Check that the cluster has capacity, then retry.',
  },
  lost: {
    meaning: 'The attempt disappeared with its machine, and may have had effects.',
    advice: 'Check for effects such as pushed branches before you retry.',
  },
  node_lost: {
    meaning: 'The node of the attempt was lost.',
    advice: 'Check for effects such as pushed branches before you retry.',
  },
  out_of_memory: {
    meaning: 'The attempt used more memory than it may.',
    advice: 'Raise LABRATS_AGENT_MEMORY or, on Kubernetes, the memory of executors, then retry.',
  },
  evicted: {
    meaning: 'The cluster evicted the pod of the attempt.',
    advice: 'Retry; check the disk and memory of the nodes if it happens again.',
  },
  image_pull: {
    meaning: 'The executor image could not be pulled.',
    advice: 'Check the name of the image and the registry.',
  },
  unschedulable: {
    meaning: 'No node has room for the attempt.',
    advice: 'Check the requested resources and the capacity of the cluster.',
  },
  setup: { meaning: 'A setup command failed, or took too long.', advice: 'Its output is in the log.' },
  git_clone: {
    meaning: 'The repository could not be cloned.',
    advice: 'Check the address, the ref and the credentials of the repository.',
  },
  workspace: { meaning: 'The workspace could not be prepared.', advice: 'Check the files and uploads of the job.' },
  agent_error: {
    meaning: 'The agent ended with an error.',
    advice: 'Read the end of the log, then retry or change the prompt.',
  },
  result_invalid: {
    meaning: 'The result does not match the schema of the job.',
    advice: 'Describe the result in the prompt, or loosen the schema.',
  },
  executor_died: { meaning: 'The executor ended without an outcome.', advice: 'Read the end of the log, then retry.' },
  invalid: {
    meaning: 'The job asks for something that the engine does not accept or have.',
    advice: 'Correct the job and submit it again, or correct the engine and retry.',
  },
  internal: { meaning: 'The engine failed.', advice: 'Retry; the log of the engine has the details.' },
};

/** Failures with some codes, by a part of the reason of the job. */
const SPECIAL: Partial<Record<FailedCode, [reason: RegExp, Explanation][]>> = {
  invalid: [
    [
      /is not installed|which is no program/,
      {
        meaning: 'The program of the provider is missing on the engine.',
        advice: 'Run the command that the reason names, or choose another provider; then retry.',
      },
    ],
    [
      /^no server is set/,
      {
        meaning: 'The engine knows no server of this model.',
        advice: 'Run the command that the reason names, or choose another model; then retry.',
      },
    ],
  ],
  auth: [
    [
      /^an external contributor caused this job/,
      {
        meaning: 'A job that an external contributor caused gets no secrets.',
        advice: 'Give the agent of such jobs no variables and no MCP servers with a Secret.',
      },
    ],
    [
      /which no agent gets$/,
      { meaning: 'The Secret has a credential that no agent gets.', advice: 'Name another Secret for the agent.' },
    ],
    [
      /there is no Secret|the Secret .* has no(ne of| key) |has no credentials/,
      { meaning: 'The credentials are not stored.', advice: 'Store them as the reason says, then retry.' },
    ],
    [
      /\(check /, // the advice of the executor for an answer of the model's server
      { meaning: 'The provider refused the credentials.', advice: 'Check the credentials of the model, then retry.' },
    ],
  ],
};

export function codeMeaning(code: string, reason?: string | null): string {
  return explanationOf(code, reason)?.meaning ?? 'The job failed.';
}

/** The next step that usually helps. reason: of the job. */
export function codeAdvice(code: string, reason: string | null): string {
  return explanationOf(code, reason)?.advice ?? 'Read the end of the log, then retry.';
}

function explanationOf(code: string, reason: string | null = null): Explanation | undefined {
  if (!isKnown(code)) return undefined;
  const special = reason === null ? undefined : SPECIAL[code]?.find(([pattern]) => pattern.test(reason));
  return special?.[1] ?? EXPLANATIONS[code];
}

function isKnown(code: string): code is FailedCode {
  return Object.hasOwn(EXPLANATIONS, code);
}
