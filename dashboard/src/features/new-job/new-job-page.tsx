import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useState } from 'react';

import type { Schemas } from '../../api/client';
import { EFFORTS, ISOLATIONS, PROVIDERS } from '../../api/config';
import { agentsQuery, jobQuery, modelsQuery, promptQuery, rerunJob, submitJob, type Submission } from '../../api/jobs';
import { uploadsQuery } from '../../api/uploads';
import { visible } from '../../lib/ansi';
import { bytes } from '../../lib/format';
import { Button, IconButton } from '../../ui/button';
import { Confirm } from '../../ui/confirm';
import { Field } from '../../ui/field';
import { FieldGroup, FormBody, SelectField, TextArea, TextField } from '../../ui/fields';
import { commandKey } from '../../ui/kbd';
import { NetworkField } from '../../ui/network-field';
import { Page } from '../../ui/page';
import { ProviderWarning } from '../../ui/providers';
import { SetupFields } from '../../ui/setup-fields';
import { Failure, Loading } from '../../ui/states';
import { toast } from '../../ui/toasts';
import { Texts, useNewForm, type Body, type Form } from '../../ui/use-form';
import { VariableFields } from '../../ui/variable-fields';
import { draftOf, EMPTY_DRAFT, filesOf, NAMES, rerunOf, submissionOf, type Draft } from './draft';
import styles from './new-job-page.module.css';

export function NewJobPage() {
  const { from } = useSearch({ from: '/app/jobs/new' });
  const earlier = useQuery({ ...jobQuery(from ?? ''), enabled: from !== undefined });
  const prompt = useQuery({ ...promptQuery(from ?? ''), enabled: from !== undefined, retry: false });
  if (from === undefined) return <JobForm />;
  if (earlier.isLoadingError)
    return (
      <Page title="New job">
        <Failure error={earlier.error} onRetry={() => void earlier.refetch()} />
      </Page>
    );
  if (!earlier.data || prompt.isPending)
    return (
      <Page title="New job">
        <Loading rows={8} height={36} />
      </Page>
    );
  return (
    <JobForm
      key={from}
      first={{
        id: from,
        draft: draftOf(earlier.data, prompt.data?.prompt ?? ''),
        reports: Boolean(earlier.data.report?.target),
      }}
    />
  );
}

/** A job that runs again. reports: whether it reports to GitHub. */
interface FirstJob {
  id: string;
  draft: Draft;
  reports: boolean;
}

/** The text that is sent instead of the fields, while it is used. */
interface JsonDraft {
  isUsed: boolean;
  json: string;
}

const NO_JSON: JsonDraft = { isUsed: false, json: '' };

function jsonBody(draft: JsonDraft) {
  const texts = new Texts(draft);
  return { body: texts.json('json') ?? {}, problems: texts.problems };
}

/** The form of a new job, or of one that runs again: as fields, or as the JSON of the request. */
function JobForm({ first }: { first?: FirstJob }) {
  const navigate = useNavigate();
  const [initial] = useState(first?.draft ?? EMPTY_DRAFT);
  const [isLeavingJson, setLeavingJson] = useState(false);
  const [isResetting, setResetting] = useState(false);
  const bodyOf = (draft: Draft) => (first ? rerunOf(draft, initial) : submissionOf(draft));
  const name = first ? `rerun.${first.id}` : 'job';
  const create = (body: Body, key: string) =>
    first ? rerunJob(first.id, body, key) : submitJob(body as Submission, key);
  const reset = () => {
    fields.reset();
    json.reset();
  };
  const onDone = ({ jobId }: Schemas['Submitted']) => {
    reset();
    toast('The job is queued.');
    void navigate({ to: '/jobs/$id/activity', params: { id: jobId } });
  };
  const fields = useNewForm<Draft, Schemas['Submitted']>({
    initial,
    storedAs: name,
    bodyOf,
    names: NAMES,
    create,
    onDone,
  });
  const json = useNewForm<JsonDraft, Schemas['Submitted']>({
    initial: NO_JSON,
    storedAs: `${name}.json`,
    bodyOf: jsonBody,
    create,
    onDone,
  });
  const form = json.draft.isUsed ? json : fields;
  const asJson = () => JSON.stringify(bodyOf(fields.draft).body, null, 2);
  const showJson = () => {
    if (json.draft.isUsed) return;
    json.set('json', asJson());
    json.set('isUsed', true);
  };
  const showFields = () => (json.draft.isUsed && json.draft.json !== asJson() ? setLeavingJson(true) : json.reset());

  return (
    <Page
      isForm
      title={first ? `Run ${first.id} again` : 'New job'}
      actions={
        <div role="group" aria-label="Kind of input" className={styles.modes}>
          <button type="button" aria-pressed={!json.draft.isUsed} onClick={showFields}>
            Form
          </button>
          <button type="button" aria-pressed={json.draft.isUsed} onClick={showJson}>
            JSON
          </button>
        </div>
      }
    >
      {isLeavingJson && (
        <Confirm
          title="Discard the changes of the JSON?"
          action="Discard them"
          onClose={() => setLeavingJson(false)}
          run={() => Promise.resolve()}
          onDone={() => {
            setLeavingJson(false);
            json.reset();
          }}
        >
          <p>The form has no fields for them. It shows the values that it had before.</p>
        </Confirm>
      )}
      {isResetting && (
        <Confirm
          title="Discard this draft?"
          action="Discard it"
          onClose={() => setResetting(false)}
          run={() => Promise.resolve()}
          onDone={() => {
            setResetting(false);
            reset();
          }}
        >
          <p>All fields get the values that they had at first.</p>
        </Confirm>
      )}
      <div className={styles.form}>
        <FormBody
          form={form}
          footer={
            <div className={styles.footer}>
              <Button type="submit" kind="primary" isBusy={form.isBusy}>
                {first ? 'Run again' : 'Submit job'}
              </Button>
              <Button kind="quiet" onClick={() => setResetting(true)}>
                Reset
              </Button>
              <span>{commandKey('Enter')} submits. The draft stays in this tab.</span>
            </div>
          }
        >
          {json.draft.isUsed ? (
            <TextArea
              form={json}
              name="json"
              label={first ? 'Changes' : 'Submission'}
              rows={22}
              isCode
              hint={`The body of POST /api/jobs/${first ? `${first.id}/rerun` : 'submit'}. It is sent unchanged.`}
            />
          ) : (
            <JobFields form={fields} first={first} />
          )}
        </FormBody>
      </div>
    </Page>
  );
}

function JobFields({ form, first }: { form: Form<Draft>; first: FirstJob | undefined }) {
  const agents = useQuery(agentsQuery);
  const models = useQuery(modelsQuery);
  const unlisted = [agents, models].find((query) => query.isLoadingError);
  const known = (models.data?.aiModels ?? [])
    .filter((model) => !form.draft.provider || model.provider === form.draft.provider)
    .map((model) => model.model);
  const roles = (agents.data?.agents ?? [])
    .filter((agent) => agent.enabled)
    .map((agent) => [agent.triggerName, agent.name] as const);
  return (
    <>
      {unlisted && <Failure error={unlisted.error} onRetry={() => void unlisted.refetch()} />}
      <TextArea
        form={form}
        name="prompt"
        label="Prompt"
        rows={7}
        hasFocus
        placeholder={first ? 'The earlier prompt' : 'What should the agent do?'}
        hint={
          first &&
          'The instructions, files and repository of the first job are repeated. Its token must be younger than 10 minutes.'
        }
      />
      <ProviderWarning chosen={form.draft.provider} />
      <FieldGroup title="Agent and model" columns={4}>
        {!first && <SelectField form={form} name="agentRole" label="Agent" options={roles} none="None" />}
        <SelectField form={form} name="provider" label="Provider" options={PROVIDERS} none="Default" />
        <TextField form={form} name="model" label="Model" placeholder="Default" suggestions={known} />
        <SelectField form={form} name="effort" label="Effort" options={EFFORTS} none="Default" />
        <NetworkField form={form} name="network" label="Network" none="Default" />
        <SelectField form={form} name="isolation" label="Isolation, at least" options={ISOLATIONS} none="Default" />
        <VariableFields
          form={form}
          hint="For the agent, its tools and the setup commands, in place of those of the agent's settings."
        />
      </FieldGroup>
      {!first && <Workspace form={form} />}
      <FieldGroup title="Limits" columns={4}>
        <TextField form={form} name="timeoutMinutes" label="Time, minutes" isNumeric placeholder="55" />
        <TextField form={form} name="maxTurns" label="Turns" isNumeric placeholder="25" />
        <TextField form={form} name="maxCostUsd" label="Cost, US dollars" isNumeric />
        <TextField form={form} name="maxTokens" label="Tokens" isNumeric />
        <TextField form={form} name="maxAttempts" label="Attempts" isNumeric placeholder="1" />
        <TextField form={form} name="fallbackModel" label="Fallback model" />
      </FieldGroup>
      <FieldGroup title="Job" columns={4}>
        {!first && <TextField form={form} name="type" label="Type" />}
        <TextField form={form} name="priority" label="Priority, lower runs first" isNumeric placeholder="2" />
        {first?.reports && (
          <SelectField
            form={form}
            name="report"
            label="Report to GitHub"
            width="half"
            options={[['again', 'As the first job did']]}
            none="No"
          />
        )}
        {!first && (
          <>
            <TextField form={form} name="callbackUrl" label="Callback URL" width="half" placeholder="https://" />
            <TextArea
              form={form}
              name="resultSchema"
              label="Result schema"
              rows={3}
              isCode
              hint="A JSON Schema. The job fails unless its result matches it."
              placeholder={'{"type": "object", "properties": {"risk": {"type": "integer"}}, "required": ["risk"]}'}
            />
          </>
        )}
        <TextArea
          form={form}
          name="metadata"
          label="Metadata"
          rows={3}
          isCode
          placeholder={'{"repo": "octocat/hello-world"}'}
          hint={
            <>
              A JSON object. <code>repo</code> and <code>title</code> in it appear in the list of jobs.
            </>
          }
        />
      </FieldGroup>
    </>
  );
}

/** The repository, how it is prepared, and files. */
function Workspace({ form }: { form: Form<Draft> }) {
  return (
    <>
      <FieldGroup title="Repository" columns={4}>
        <TextField
          form={form}
          name="gitRepo"
          label="Address"
          width="half"
          placeholder="https://github.com/octocat/hello-world.git"
        />
        <TextField form={form} name="gitRef" label="Branch, tag or commit" />
        <TextField form={form} name="gitDepth" label="Depth" isNumeric />
        <SetupFields form={form} />
      </FieldGroup>
      <FieldGroup title="Files" columns={4}>
        <FileChoice form={form} />
      </FieldGroup>
    </>
  );
}

/** Uploaded files that are copied into the workspace. */
function FileChoice({ form }: { form: Form<Draft> }) {
  const uploads = useQuery(uploadsQuery('workspace'));
  const chosen = filesOf(form.draft.files);
  const lines = chosen.map(({ id, name }) => `${id}/${name}`);
  const others = (uploads.data ?? []).filter((upload) => !chosen.some(({ id }) => id === upload.id));
  return (
    <div className={styles.files}>
      {uploads.isLoadingError && <Failure error={uploads.error} onRetry={() => void uploads.refetch()} />}
      <Field
        label="Uploaded files"
        error={form.problems.files}
        hint={
          <>
            The agent finds them in its workspace. <Link to="/files/workspace">Upload files</Link>; this draft stays in
            the tab.
          </>
        }
      >
        {(ids) => (
          <select
            {...ids}
            name="files"
            value=""
            onChange={(event) => form.set('files', [...lines, event.target.value].join('\n'))}
          >
            <option value="">{others.length > 0 ? 'Add a file' : 'No other file is uploaded'}</option>
            {others.map(({ id, name, size }) => (
              <option key={id} value={`${id}/${name}`}>{`${visible(name)}, ${bytes(size)}`}</option>
            ))}
          </select>
        )}
      </Field>
      <ul>
        {chosen.map(({ id, name }) => (
          <li key={id}>
            {visible(name)}{' '}
            <IconButton
              icon="close"
              label={`Leave out ${visible(name)}`}
              onClick={() => form.set('files', lines.filter((line) => !line.startsWith(`${id}/`)).join('\n'))}
            />
          </li>
        ))}
      </ul>
    </div>
  );
}
