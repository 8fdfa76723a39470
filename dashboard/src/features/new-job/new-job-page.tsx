import { useMutation, useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useId, useState, type KeyboardEvent, type ReactNode, type SyntheticEvent } from 'react';

import { ApiError, isFinal } from '../../api/client';
import { EFFORTS, ISOLATIONS, PROVIDERS } from '../../api/config';
import { agentsQuery, jobQuery, modelsQuery, promptQuery, rerunJob, submitJob, type Rerun, type Submission } from '../../api/jobs';
import { uploadsQuery } from '../../api/uploads';
import { visible } from '../../lib/ansi';
import { bytes } from '../../lib/format';
import { parseJson } from '../../lib/json';
import { randomKey } from '../../lib/random-key';
import { readStoredJson, writeStored } from '../../lib/storage';
import { Button, IconButton } from '../../ui/button';
import { Confirm } from '../../ui/confirm';
import { Field } from '../../ui/field';
import { Page } from '../../ui/page';
import { Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { draftOf, EMPTY_DRAFT, filesOf, problemsOf, rerunOf, submissionOf, type Draft, type Problems } from './draft';
import styles from './new-job-page.module.css';

const STORED = 'labrats.draft';

interface Stored {
  draft: Draft;
  /** The text of the JSON tab while it is used instead of the form. */
  json: string | null;
  from: string | undefined;
}

function storedDraft(from: string | undefined): Stored {
  const stored = readStoredJson('sessionStorage', STORED) as Partial<Stored> | null | undefined;
  if (stored?.draft && stored.from === from) return { draft: { ...EMPTY_DRAFT, ...stored.draft }, json: stored.json ?? null, from };
  return { draft: EMPTY_DRAFT, json: null, from };
}

export function NewJobPage() {
  const { from } = useSearch({ from: '/app/jobs/new' });
  const earlier = useQuery({ ...jobQuery(from ?? ''), enabled: from !== undefined });
  const prompt = useQuery({ ...promptQuery(from ?? ''), enabled: from !== undefined, retry: false });
  if (from !== undefined && earlier.error) return <Page title="New job"><Failure error={earlier.error} onRetry={() => void earlier.refetch()} /></Page>;
  if (from !== undefined && (!earlier.data || prompt.isPending)) return <Page title="New job"><Loading rows={8} height={36} /></Page>;
  return <Form key={from ?? ''} from={from} hasReport={Boolean(earlier.data?.report?.target)} initial={earlier.data && draftOf(earlier.data, prompt.data?.prompt ?? '')} />;
}

function Form({ from, hasReport, initial }: { from: string | undefined; hasReport: boolean; initial: Draft | undefined }) {
  const navigate = useNavigate();
  const [{ draft, json }, setState] = useState<Stored>(() => {
    const stored = storedDraft(from);
    return stored.draft === EMPTY_DRAFT && stored.json === null && initial ? { draft: initial, json: null, from } : stored;
  });
  const [problems, setProblems] = useState<Problems>({});
  const [others, setOthers] = useState<string[]>([]);
  const [key, setKey] = useState(() => randomKey());
  const agents = useQuery(agentsQuery);
  const models = useQuery(modelsQuery);
  const [isSent, setSent] = useState(false);
  const [isLeavingJson, setLeavingJson] = useState(false);

  useEffect(() => {
    writeStored('sessionStorage', STORED, isSent ? undefined : JSON.stringify({ draft, json, from }));
  }, [draft, json, from, isSent]);

  const set = (field: keyof Draft) => (value: string) => {
    setState((before) => ({ ...before, draft: { ...before.draft, [field]: value } }));
    setProblems((before) => ({ ...before, [field]: undefined }));
    setKey(randomKey());
  };
  const submit = useMutation({
    mutationFn: (request: unknown) => (from === undefined ? submitJob(request as Submission, key) : rerunJob(from, request as Rerun, key)),
    onSuccess: ({ jobId }) => {
      setSent(true);
      toast('The job is queued.');
      void navigate({ to: '/jobs/$id/activity', params: { id: jobId } });
    },
    onError: (error) => {
      if (isFinal(error)) setKey(randomKey()); // else the engine may have created the job, and the same key finds it
      if (!(error instanceof ApiError)) return;
      const found = problemsOf(error.details);
      setProblems(found.fields);
      setOthers(json === null ? found.others : error.details.map(({ field, message }) => `${field}: ${message}`));
    },
  });
  const requestOf = (current: Draft): { request: unknown; problems: Problems } => {
    if (initial) {
      const { changes, problems: found } = rerunOf(current, initial);
      return { request: changes, problems: found };
    }
    const { submission, problems: found } = submissionOf(current);
    return { request: submission, problems: found };
  };
  const send = (event?: SyntheticEvent) => {
    event?.preventDefault();
    setOthers([]);
    if (json !== null) {
      const parsed = parseJson(json);
      if ('error' in parsed) setOthers([parsed.error]);
      else submit.mutate(parsed.value);
      return;
    }
    const { request, problems: found } = requestOf(draft);
    setProblems(found);
    const [first] = Object.keys(found);
    if (first === undefined) submit.mutate(request);
    else document.querySelector<HTMLElement>(`[name=${first}]`)?.focus();
  };
  const jsonOf = (current: Draft) => JSON.stringify(requestOf(current).request, null, 2);
  const returnToForm = () => {
    setState((before) => ({ ...before, json: null }));
    setLeavingJson(false);
    setKey(randomKey());
  };
  const press = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && (event.metaKey || event.ctrlKey)) send();
  };
  const clear = () => {
    setState({ draft: initial ?? EMPTY_DRAFT, json: null, from });
    setProblems({});
    setOthers([]);
    submit.reset();
  };
  const hasGeneralError = submit.error && (!(submit.error instanceof ApiError) || submit.error.details.length === 0);
  const unlisted = [agents, models].find((query) => query.isLoadingError);
  const known = (models.data?.aiModels ?? []).filter((model) => !draft.provider || model.provider === draft.provider);

  return (
    <Page title={from ? `Run ${from} again` : 'New job'}
      actions={
        <div role="group" aria-label="Kind of input" className={styles.modes}>
          <button type="button" aria-pressed={json === null} onClick={() => (json === null || json === jsonOf(draft) ? returnToForm() : setLeavingJson(true))}>Form</button>
          <button type="button" aria-pressed={json !== null} onClick={() => setState((before) => ({ ...before, json: before.json ?? jsonOf(draft) }))}>JSON</button>
        </div>
      }>
      {unlisted && <Failure error={unlisted.error} onRetry={() => void unlisted.refetch()} />}
      {isLeavingJson && (
        <Confirm title="Discard the changes of the JSON?" action="Discard them" onClose={() => setLeavingJson(false)} run={() => Promise.resolve()} onDone={returnToForm}>
          <p>The form has no fields for them. It shows the values that it had before.</p>
        </Confirm>
      )}
      {/* The shortcut works in every field. */}
      <form onSubmit={send} onKeyDown={press} className={styles.form} noValidate>
        {json !== null ? (
          <Field label={from ? 'Changes' : 'Submission'} hint={`The body of POST /api/jobs/${from ? `${from}/rerun` : 'submit'}. It is sent unchanged.`}>
            {(ids) => <textarea {...ids} className={styles.json} rows={22} spellCheck={false} value={json} onChange={(event) => { setState((before) => ({ ...before, json: event.target.value })); setKey(randomKey()); }} />}
          </Field>
        ) : (
          <>
            <Field label="Prompt" error={problems.prompt} hint={from ? 'The instructions, files and repository of the first job are repeated. Its token must be younger than 10 minutes.' : undefined}>
              {(ids) => <textarea {...ids} name="prompt" className={styles.prompt} rows={7} value={draft.prompt} placeholder={from ? 'The earlier prompt' : 'What should the agent do?'} onChange={(event) => set('prompt')(event.target.value)} />}
            </Field>
            <Group title="Agent and model">
              {!from && <Field label="Agent" error={problems.agentRole}>
                {(ids) => (
                  <select {...ids} name="agentRole" value={draft.agentRole} onChange={(event) => set('agentRole')(event.target.value)}>
                    <option value="">None</option>
                    {draft.agentRole && !agents.data?.agents.some((agent) => agent.triggerName === draft.agentRole) && <option value={draft.agentRole}>{draft.agentRole}</option>}
                    {agents.data?.agents.filter((agent) => agent.enabled).map((agent) => <option key={agent.id} value={agent.triggerName}>{agent.name}</option>)}
                  </select>
                )}
              </Field>}
              <Field label="Provider" error={problems.provider}>
                {(ids) => <Choice ids={ids} name="provider" value={draft.provider} options={PROVIDERS} onChange={set('provider')} />}
              </Field>
              <Field label="Model" error={problems.model}>
                {(ids) => <Suggested ids={ids} name="model" value={draft.model} options={known.map((model) => model.model)} onChange={set('model')} />}
              </Field>
              <Field label="Effort" error={problems.effort}>
                {(ids) => <Choice ids={ids} name="effort" value={draft.effort} options={EFFORTS} onChange={set('effort')} />}
              </Field>
              <Text label="Network" field="network" draft={draft} problems={problems} set={set} wide placeholder="The agent's default; or open, none, npm, *.example.com" />
              <Field label="Isolation, at least" error={problems.isolation}>
                {(ids) => <Choice ids={ids} name="isolation" value={draft.isolation} options={ISOLATIONS} onChange={set('isolation')} />}
              </Field>
            </Group>
            {!from && <Group title="Repository">
              <Text label="Address" field="gitRepo" draft={draft} problems={problems} set={set} wide placeholder="https://github.com/octocat/hello-world.git" />
              <Text label="Branch, tag or commit" field="gitRef" draft={draft} problems={problems} set={set} />
              <Text label="Depth" field="gitDepth" draft={draft} problems={problems} set={set} numeric />
              <div className={styles.whole}>
                <Field label="Setup commands" error={problems.setup} hint="One a line. They run before the agent starts, without the model's key.">
                  {(ids) => <textarea {...ids} name="setup" className={styles.json} rows={2} spellCheck={false} value={draft.setup} placeholder="npm ci" onChange={(event) => set('setup')(event.target.value)} />}
                </Field>
              </div>
              {draft.setup.trim() !== '' && <>
                <Text label="Network of the commands" field="setupNetwork" draft={draft} problems={problems} set={set} wide placeholder="That of the agent; or open, none, npm, *.example.com" />
                <div className={styles.whole}>
                  <Field label="Cached folders" error={problems.cache} hint="One a line: a file, and a folder that later jobs get while the file stays the same.">
                    {(ids) => <textarea {...ids} name="cache" className={styles.json} rows={2} spellCheck={false} value={draft.cache} placeholder="package-lock.json: node_modules" onChange={(event) => set('cache')(event.target.value)} />}
                  </Field>
                </div>
              </>}
            </Group>}
            {!from && <Group title="Files"><FileChoice draft={draft} problem={problems.files} onChange={set('files')} /></Group>}
            <Group title="Limits">
              <Text label="Time, minutes" field="timeoutMinutes" draft={draft} problems={problems} set={set} numeric placeholder="55" />
              <Text label="Turns" field="maxTurns" draft={draft} problems={problems} set={set} numeric placeholder="25" />
              <Text label="Cost, US dollars" field="maxCostUsd" draft={draft} problems={problems} set={set} numeric />
              <Text label="Tokens" field="maxTokens" draft={draft} problems={problems} set={set} numeric />
              <Text label="Attempts" field="maxAttempts" draft={draft} problems={problems} set={set} numeric placeholder="1" />
              <Text label="Fallback model" field="fallbackModel" draft={draft} problems={problems} set={set} />
            </Group>
            <Group title="Job">
              {!from && <Text label="Type" field="type" draft={draft} problems={problems} set={set} />}
              <Text label="Priority, lower runs first" field="priority" draft={draft} problems={problems} set={set} numeric placeholder="2" />
              {hasReport && (
                <Field label="Report to GitHub" error={problems.report}>
                  {(ids) => (
                    <select {...ids} name="report" value={draft.report} onChange={(event) => set('report')(event.target.value)}>
                      <option value="">No</option>
                      <option value="again">As the first job did</option>
                    </select>
                  )}
                </Field>
              )}
              {!from && <Text label="Callback URL" field="callbackUrl" draft={draft} problems={problems} set={set} wide placeholder="https://" />}
              {!from && (
                <div className={styles.whole}>
                  <Field label="Result schema" error={problems.resultSchema} hint="A JSON Schema. The job fails unless its result matches it.">
                    {(ids) => <textarea {...ids} name="resultSchema" className={styles.json} rows={3} spellCheck={false} value={draft.resultSchema} placeholder={'{"type": "object", "properties": {"risk": {"type": "integer"}}, "required": ["risk"]}'} onChange={(event) => set('resultSchema')(event.target.value)} />}
                  </Field>
                </div>
              )}
              <div className={styles.whole}>
                <Field label="Metadata" error={problems.metadata} hint={<>A JSON object. <code>repo</code> and <code>title</code> in it appear in the list of jobs.</>}>
                  {(ids) => <textarea {...ids} name="metadata" className={styles.json} rows={3} spellCheck={false} value={draft.metadata} placeholder={'{"repo": "octocat/hello-world"}'} onChange={(event) => set('metadata')(event.target.value)} />}
                </Field>
              </div>
            </Group>
          </>
        )}
        {hasGeneralError && <Failure error={submit.error} />}
        {others.length > 0 && <ul role="alert" className={styles.problems}>{others.map((problem) => <li key={problem}>{problem}</li>)}</ul>}
        <div className={styles.footer}>
          <Button type="submit" kind="primary" isBusy={submit.isPending}>{from ? 'Run again' : 'Submit job'}</Button>
          <Button kind="quiet" onClick={clear}>Reset</Button>
          <span>Ctrl Enter submits. The draft stays in this tab.</span>
        </div>
      </form>
    </Page>
  );
}

function Group({ title, children }: { title: string; children: ReactNode }) {
  return (
    <fieldset className={styles.group}>
      <legend>{title}</legend>
      <div>{children}</div>
    </fieldset>
  );
}

/** Uploaded files that are copied into the workspace. */
function FileChoice({ draft, problem, onChange }: { draft: Draft; problem: string | undefined; onChange: (files: string) => void }) {
  const uploads = useQuery(uploadsQuery('workspace'));
  const chosen = filesOf(draft.files);
  const lines = chosen.map(({ id, name }) => `${id}/${name}`);
  const others = (uploads.data ?? []).filter((upload) => !chosen.some(({ id }) => id === upload.id));
  return (
    <div className={styles.whole}>
      {uploads.isLoadingError && <Failure error={uploads.error} onRetry={() => void uploads.refetch()} />}
      <Field label="Uploaded files" error={problem} hint={<>The agent finds them in its workspace. <Link to="/files/workspace">Upload files</Link>; this draft stays in the tab.</>}>
        {(ids) => (
          <select {...ids} name="files" value="" onChange={(event) => onChange([...lines, event.target.value].join('\n'))}>
            <option value="">{others.length > 0 ? 'Add a file' : 'No other file is uploaded'}</option>
            {others.map(({ id, name, size }) => <option key={id} value={`${id}/${name}`}>{`${visible(name)}, ${bytes(size)}`}</option>)}
          </select>
        )}
      </Field>
      <ul className={styles.files}>
        {chosen.map(({ id, name }) => (
          <li key={id}>{visible(name)} <IconButton icon="close" label={`Leave out ${visible(name)}`} onClick={() => onChange(lines.filter((line) => !line.startsWith(`${id}/`)).join('\n'))} /></li>
        ))}
      </ul>
    </div>
  );
}

interface TextProps {
  label: string;
  field: keyof Draft;
  draft: Draft;
  problems: Problems;
  set: (field: keyof Draft) => (value: string) => void;
  numeric?: boolean;
  wide?: boolean;
  placeholder?: string;
}

function Text({ label, field, draft, problems, set, numeric = false, wide = false, placeholder }: TextProps) {
  return (
    <div className={wide ? styles.wide : undefined}>
      <Field label={label} error={problems[field]}>
        {(ids) => (
          <input {...ids} name={field} type="text" inputMode={numeric ? 'decimal' : undefined} placeholder={placeholder} autoComplete="off" spellCheck={false}
            value={draft[field]} onChange={(event) => set(field)(event.target.value)} />
        )}
      </Field>
    </div>
  );
}

interface ChoiceProps {
  ids: object;
  name: string;
  value: string;
  options: readonly string[];
  onChange: (value: string) => void;
}

function Choice({ ids, name, value, options, onChange }: ChoiceProps) {
  return (
    <select {...ids} name={name} value={value} onChange={(event) => onChange(event.target.value)}>
      <option value="">Default</option>
      {options.map((option) => <option key={option} value={option}>{option}</option>)}
    </select>
  );
}

/** A field for any text, with suggestions. */
function Suggested({ ids, name, value, options, onChange }: ChoiceProps) {
  const list = useId();
  return (
    <>
      <input {...ids} name={name} list={list} value={value} placeholder="Default" autoComplete="off" spellCheck={false} onChange={(event) => onChange(event.target.value)} />
      <datalist id={list}>{[...new Set(options)].map((option) => <option key={option} value={option} />)}</datalist>
    </>
  );
}
