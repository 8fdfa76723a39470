import { useQuery } from '@tanstack/react-query';

import { promptQuery } from '../../api/jobs';
import { visible, visibleLines } from '../../lib/ansi';
import { bytes } from '../../lib/format';
import { AgentLink } from '../../ui/agent-link';
import { Copy } from '../../ui/copy';
import { SettingValue, SetupFacts, settingName, settingsOf } from '../../ui/job-settings';
import { JsonTree } from '../../ui/json-tree';
import { Panel } from '../../ui/page';
import { Failure, Loading } from '../../ui/states';
import styles from './tables.module.css';
import pageStyles from './job-page.module.css';
import { useJob } from './use-job';

export function InputTab() {
  const job = useJob();
  const setup = job.workspaceSetup;
  const metadata = Object.entries(job.metadata);
  return (
    <div className={pageStyles.body}>
      <Panel title="Task">
        <dl className={styles.facts}>
          <div>
            <dt>Title</dt>
            <dd>{visible(job.title ?? '—')}</dd>
          </div>
          <div>
            <dt>Type</dt>
            <dd>{visible(job.name)}</dd>
          </div>
          <div>
            <dt>Source</dt>
            <dd>{visible(job.source)}</dd>
          </div>
          <div>
            <dt>Agent</dt>
            <dd>{job.agentRole ? <AgentLink role={job.agentRole} /> : 'none'}</dd>
          </div>
          <div>
            <dt>Priority</dt>
            <dd>{job.priority}, lower runs first</dd>
          </div>
        </dl>
      </Panel>
      <Prompt id={job.id} />
      {setup && (
        <Panel title="Repository">
          <dl className={styles.facts}>
            <div>
              <dt>Address</dt>
              <dd>{visible(setup.gitRepo)}</dd>
            </div>
            <div>
              <dt>Ref</dt>
              <dd>{setup.gitRef ? visible(setup.gitRef) : 'default branch'}</dd>
            </div>
            {setup.gitDepth !== null && (
              <div>
                <dt>Depth</dt>
                <dd>{setup.gitDepth}</dd>
              </div>
            )}
            <SetupFacts setup={setup} />
            <div>
              <dt>Credential</dt>
              <dd>{setup.hasCredential ? 'a token, which is never shown' : 'none'}</dd>
            </div>
          </dl>
        </Panel>
      )}
      {job.workspaceFiles.length > 0 && (
        <Panel title="Files">
          <dl className={styles.facts}>
            {job.workspaceFiles.map((file) => (
              <div key={file.name}>
                <dt>{visible(file.name)}</dt>
                <dd>{bytes(file.size)}</dd>
              </div>
            ))}
          </dl>
        </Panel>
      )}
      <Panel title="Settings">
        <table className={styles.table}>
          <thead>
            <tr>
              <th scope="col">Setting</th>
              <th scope="col">Value</th>
              <th scope="col">From</th>
            </tr>
          </thead>
          <tbody>
            {settingsOf(job.config).map(([name, value]) => (
              <tr key={name}>
                <td>{settingName(name)}</td>
                <td>
                  <SettingValue name={name} value={value} />
                </td>
                <td className={styles.origin}>{job.configOrigins[name] ?? ''}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Panel>
      {metadata.length > 0 && (
        <Panel title="Metadata">
          <div className={styles.pad}>
            <JsonTree value={job.metadata} />
          </div>
        </Panel>
      )}
    </div>
  );
}

/** The texts for the agent, as they were sent to it. */
function Prompt({ id }: { id: string }) {
  const { data, error, refetch } = useQuery({ ...promptQuery(id), retry: false });
  return (
    <>
      <Panel title="Prompt" note={data && <Copy text={data.prompt} label="Copy the prompt" />}>
        {error && (
          <div className={styles.pad}>
            <Failure error={error} onRetry={() => void refetch()} />
          </div>
        )}
        {!data && !error && (
          <div className={styles.pad}>
            <Loading rows={3} height={20} />
          </div>
        )}
        {data && <Text label="Prompt" text={data.prompt} />}
      </Panel>
      {data?.instructions && (
        <Panel title="Instructions">
          <Text label="Instructions" text={data.instructions} />
        </Panel>
      )}
    </>
  );
}

function Text({ label, text }: { label: string; text: string }) {
  return (
    <pre className={styles.prompt} tabIndex={0} role="region" aria-label={`Text: ${label}`}>
      {visibleLines(text)}
    </pre>
  );
}
