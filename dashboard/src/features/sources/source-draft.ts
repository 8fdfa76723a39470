/** The form of a webhook source. */

import type { RepoOverride, WebhookSource } from '../../api/sources';
import { CONFIG_LABELS, configDraft, configNames, configOf, type ConfigDraft } from '../../lib/job-config';
import { REPORT_LABELS, reportText, type ReportDraft } from '../../ui/report-fields';
import { Texts, type Body, type Problems } from '../../ui/use-form';

export const ASSOCIATIONS = [
  ['OWNER', 'Owners'],
  ['MEMBER', 'Members of the organisation'],
  ['COLLABORATOR', 'Collaborators'],
  ['CONTRIBUTOR', 'Contributors'],
  ['FIRST_TIME_CONTRIBUTOR', 'First-time contributors'],
  ['FIRST_TIMER', 'First-timers on GitHub'],
  ['MANNEQUIN', 'Placeholders of imported users'],
  ['NONE', 'Everyone else'],
] as const;

export interface OverrideDraft {
  repo: string;
  enabled: boolean;
  provider: string;
  model: string;
  effort: string;
  agent: string;
  /** Not in the form, and kept. */
  report: RepoOverride['report'];
}

export interface SourceDraft extends ConfigDraft, ReportDraft {
  type: string;
  credentialsRef: string;
  host: string;
  path: string;
  ingressClassName: string;
  tlsSecretName: string;
  allowForks: boolean;
  associations: string[];
  overrides: OverrideDraft[];
}

export const SOURCE_LABELS: Record<keyof SourceDraft, string> = {
  ...CONFIG_LABELS,
  ...REPORT_LABELS,
  type: 'Type',
  credentialsRef: 'Credentials',
  host: 'Host',
  path: 'Path',
  ingressClassName: 'Class of the Ingress',
  tlsSecretName: 'Secret of the certificate',
  allowForks: 'Pull requests from forks',
  associations: 'Who may start a run',
  overrides: 'Settings of repositories',
};

export const SOURCE_NAMES: Readonly<Record<string, keyof SourceDraft>> = {
  ...configNames('defaults'),
  allowedAssociations: 'associations',
  repoOverrides: 'overrides',
};

export function sourceDraft(source: WebhookSource): SourceDraft {
  return {
    ...configDraft(source.defaults),
    type: source.type,
    credentialsRef: source.credentialsRef ?? '',
    host: source.host ?? '',
    path: source.path ?? '',
    ingressClassName: source.ingressClassName ?? '',
    tlsSecretName: source.tlsSecretName ?? '',
    allowForks: source.allowForks,
    associations: source.allowedAssociations,
    overrides: Object.entries(source.repoOverrides).map(([repo, override]) => overrideDraft(repo, override)),
    report: reportText(source.report),
  };
}

function overrideDraft(repo: string, override: RepoOverride): OverrideDraft {
  return {
    repo,
    enabled: override.enabled,
    provider: override.provider ?? '',
    model: override.model ?? '',
    effort: override.effort ?? '',
    agent: override.agentTriggerName ?? '',
    report: override.report,
  };
}

export function sourceBody(draft: SourceDraft): { body: Body; problems: Problems<SourceDraft> } {
  const texts = new Texts(draft);
  const overrides = draft.overrides
    .map((each) => ({ ...each, repo: each.repo.trim() }))
    .filter(({ repo }) => repo !== '');
  const repeated = overrides.find(({ repo }, index) => overrides.findIndex((each) => each.repo === repo) !== index);
  if (repeated) texts.problems.overrides = `${repeated.repo} occurs twice`;
  const body = {
    type: draft.type,
    credentialsRef: texts.text('credentialsRef'),
    host: texts.text('host'),
    path: texts.text('path'),
    ingressClassName: texts.text('ingressClassName'),
    tlsSecretName: texts.text('tlsSecretName'),
    allowForks: draft.allowForks,
    allowedAssociations: ASSOCIATIONS.map(([value]) => value).filter((each) => draft.associations.includes(each)),
    defaults: configOf(texts),
    repoOverrides: Object.fromEntries(
      overrides.map(({ repo, enabled, provider, model, effort, agent, report }) => [
        repo,
        {
          enabled,
          provider: provider || null,
          model: model.trim() || null,
          effort: effort || null,
          agentTriggerName: agent || null,
          ...(report && { report }),
        },
      ]),
    ),
    report: texts.json('report'),
  };
  return { body, problems: texts.problems };
}

/** A secret that cannot be guessed, as text. */
export function newSecret(): string {
  return [...crypto.getRandomValues(new Uint8Array(24))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
