import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useEffectEvent, useState } from 'react';

import { agentQuery, readAgent, type Agent } from '../../api/agents';
import { testEvent, type EventTested, type StartedJob } from '../../api/incoming-events';
import { readDelivery, recordedQuery, sourcesQuery } from '../../api/sources';
import { visible } from '../../lib/ansi';
import { counted, fullTime } from '../../lib/format';
import { Changing } from '../../ui/access';
import { Button } from '../../ui/button';
import { FieldGroup, FormBody, SelectField, TextArea, TextField } from '../../ui/fields';
import { Notice } from '../../ui/notice';
import { Prose } from '../../ui/prose';
import { Failure, Loading } from '../../ui/states';
import { useNewForm, type Form, type FormState } from '../../ui/use-form';
import { useAgent } from './agent-page';
import styles from './agent-page.module.css';
import { PreviewedJob } from './previewed-job';
import { SendDialog } from './send-dialog';
import {
  deliveryInUrl,
  draftOf,
  eventSourceOf,
  EXAMPLES,
  firstTest,
  payloadText,
  storedTest,
  storeTest,
  testBody,
  type TestBody,
  type TestDraft,
} from './test-draft';
import { outcomeInWords, verdictInWords } from './verdict-words';
import { eventsInWords } from './words';

/** An event that was tested, and the agent at that time. */
interface Tested {
  draft: TestDraft;
  event: TestBody;
  agent: Agent;
  answer: EventTested;
}

export function TestTab() {
  const agent = useAgent();
  return <EventTest key={agent.id} agent={agent} />;
}

function EventTest({ agent }: { agent: Agent }) {
  const queries = useQueryClient();
  const [initial] = useState(() => storedTest() ?? firstTest(agent.eventTriggers));
  const [tested, setTested] = useState<Tested>();
  const form = useNewForm<TestDraft, Tested>({
    initial,
    bodyOf: (draft) => {
      const { body, problems } = testBody(draft);
      return { body: { event: body, draft }, problems };
    },
    create: async (body) => {
      const { event, draft } = body as { event: TestBody; draft: TestDraft };
      const [answer, current] = await Promise.all([testEvent({ ...event, agent: agent.name }), readAgent(agent.id)]);
      return { draft, event, agent: current, answer };
    },
    onDone: (result) => {
      queries.setQueryData(agentQuery(agent.id).queryKey, result.agent);
      setTested(result);
    },
  });
  useEffect(() => {
    if (form.draft !== initial) storeTest(form.draft); // another agent begins with its own trigger
  }, [form.draft, initial]);
  const isStale = tested && (tested.draft !== form.draft || tested.agent.resourceVersion !== agent.resourceVersion);
  return (
    <div className={styles.list}>
      <FormBody
        form={form}
        isReading
        footer={
          <div className={styles.bar}>
            <Button type="submit" kind="primary" isBusy={form.isBusy}>
              Test
            </Button>
            <p>Nothing is created.</p>
          </div>
        }
      >
        <EventFields form={form} />
      </FormBody>
      {form.isBusy && !tested && <Loading rows={5} height={36} />}
      {tested && isStale && <Notice>The event or the agent has changed since this test. Test it again.</Notice>}
      {tested && <Result tested={tested} isStale={isStale === true} />}
    </div>
  );
}

/** Fill the form with the delivery that the URL names, once: a draft that began with it keeps its changes. */
function useDelivery(form: FormState<TestDraft>) {
  const { delivery } = useSearch({ from: '/app/agents/$id/test' });
  const wanted = deliveryInUrl(delivery);
  const found = useQuery({
    queryKey: ['delivery', wanted?.source, wanted?.id],
    queryFn: () => readDelivery(wanted?.source ?? '', wanted?.id ?? ''),
    enabled: wanted !== undefined,
    staleTime: Infinity,
  });
  const fill = useEffectEvent((detail: Parameters<typeof draftOf>[0], source: string) => {
    if (form.draft.delivery === delivery) return;
    for (const [name, value] of Object.entries(draftOf(detail, source)) as [keyof TestDraft, string][])
      form.set(name, value);
  });
  const { data } = found;
  const source = wanted?.source;
  useEffect(() => {
    if (data && source !== undefined) fill(data, source);
  }, [data, source]);
  return found;
}

/** The choice of a recorded delivery of a webhook source. */
function Recorded({ source, form }: { source: string; form: FormState<TestDraft> }) {
  const { delivery } = useSearch({ from: '/app/agents/$id/test' });
  const navigate = useNavigate({ from: '/agents/$id/test' });
  const { data = [] } = useQuery(recordedQuery(source));
  if (data.length === 0) return null;
  const chosen = deliveryInUrl(delivery);
  const choose = (id: string) => {
    form.set('delivery', ''); // also the same delivery fills the form again
    void navigate({ search: id ? { delivery: `${source}/${id}` } : {}, replace: true });
  };
  return (
    <label>
      Recorded delivery:{' '}
      <select value={chosen?.source === source ? chosen.id : ''} onChange={({ target }) => choose(target.value)}>
        <option value="">None</option>
        {data.map((each) => (
          <option key={each.id} value={each.id}>
            {visible([each.event, each.repo].filter(Boolean).join(' '))}, {fullTime(new Date(each.at))}
          </option>
        ))}
      </select>
    </label>
  );
}

function EventFields({ form }: { form: FormState<TestDraft> }) {
  const sources = useQuery(sourcesQuery);
  const recorded = useDelivery(form);
  const navigate = useNavigate({ from: '/agents/$id/test' });
  const choose = (example: (typeof EXAMPLES)[number]) => {
    void navigate({ search: {}, replace: true }); // it is not the recorded delivery
    form.set('source', 'github');
    form.set('delivery', '');
    form.set('event', example.event);
    form.set('payload', payloadText(example));
  };
  const formOfSource: Form<TestDraft> = {
    ...form,
    set: (field, value) => {
      form.set(field, value);
      const chosen = sources.data?.webhookSources.find(({ name }) => name === value);
      if (chosen) form.set('source', eventSourceOf(chosen));
    },
  };
  return (
    <>
      <div className={styles.bar} role="group" aria-label="Examples">
        <span>Examples:</span>
        {EXAMPLES.map((example) => (
          <Button key={example.event} onClick={() => choose(example)}>
            {example.label}
          </Button>
        ))}
        <Changing>{form.draft.webhookSource && <Recorded source={form.draft.webhookSource} form={form} />}</Changing>
      </div>
      {recorded.error && <Failure error={recorded.error} onRetry={() => void recorded.refetch()} />}
      <FieldGroup columns={3}>
        <TextField
          form={form}
          name="source"
          label="Source"
          placeholder="github"
          suggestions={['github']}
          hint="As in triggers."
        />
        <TextField
          form={form}
          name="event"
          label="Event"
          placeholder="issues.labeled"
          suggestions={EXAMPLES.map((each) => each.event)}
        />
        <SelectField
          form={formOfSource}
          name="webhookSource"
          label="Webhook source"
          none="None"
          options={(sources.data?.webhookSources ?? []).map((each) => each.name)}
          hint="Its conditions and settings apply, as if it had received the event."
        />
        <TextArea
          form={form}
          name="payload"
          label="Payload"
          rows={12}
          isCode
          placeholder={'{"label": {"name": "ai-implement"}}'}
          hint="A JSON object. Without one, the payload is empty."
        />
      </FieldGroup>
      {sources.error && <Failure error={sources.error} onRetry={() => void sources.refetch()} />}
    </>
  );
}

function Result({ tested, isStale }: { tested: Tested; isStale: boolean }) {
  const [isSending, setSending] = useState(false);
  const [sent, setSent] = useState<{ tested: Tested; jobs: StartedJob[] }>();
  const { agent, event, answer } = tested;
  const verdict = answer.agents.find((each) => each.agent === agent.name);
  if (!verdict) return <Notice>The engine answered without a verdict on this agent.</Notice>;
  return (
    <section aria-label="Result" className={styles.list}>
      <div className={styles.bar}>
        <p role="status">
          <strong>
            <Prose text={visible(outcomeInWords(verdict, answer, event.webhookSource ?? null))} />
          </strong>
        </p>
        <Button isChanging disabled={isStale} onClick={() => setSending(true)}>
          Run for real…
        </Button>
      </div>
      {sent?.tested === tested && <StartedJobs jobs={sent.jobs} />}
      {verdict.triggers.length > 0 && (
        <ul className={styles.list} aria-label="Triggers">
          {verdict.triggers.map((each, index) => {
            const trigger = agent.eventTriggers[index];
            return (
              trigger && (
                <li key={index} className={styles.trigger}>
                  <span>{visible(eventsInWords(trigger))}</span>
                  <p className={each.matches ? undefined : styles.none}>
                    {visible(verdictInWords(each, trigger, agent, event))}
                  </p>
                </li>
              )
            );
          })}
        </ul>
      )}
      {verdict.job && <PreviewedJob job={verdict.job} />}
      {isSending && (
        <SendDialog
          event={event}
          onClose={() => setSending(false)}
          onDone={(jobs) => {
            setSent({ tested, jobs });
            setSending(false);
          }}
        />
      )}
    </section>
  );
}

function StartedJobs({ jobs }: { jobs: readonly StartedJob[] }) {
  if (jobs.length === 0) return <Notice kind="plain">The event has started no agent.</Notice>;
  return (
    <Notice kind="plain">
      The event has created {counted(jobs.length, 'job')}:
      <ul>
        {jobs.map((job) => (
          <li key={job.jobId}>
            <Link to="/jobs/$id/activity" params={{ id: job.jobId }}>
              {job.jobId}
            </Link>{' '}
            of {visible(job.agent)}
          </li>
        ))}
      </ul>
    </Notice>
  );
}
