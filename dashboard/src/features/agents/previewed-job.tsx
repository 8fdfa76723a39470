import type { JobPreview } from '../../api/incoming-events';
import { visible, visibleLines } from '../../lib/ansi';
import { Copy } from '../../ui/copy';
import { SettingValue, SetupFacts, settingName, settingsOf } from '../../ui/job-settings';
import { JsonTree } from '../../ui/json-tree';
import { Panel } from '../../ui/page';
import { cell, Table } from '../../ui/table';
import styles from './agent-page.module.css';
import pageStyles from './instructions-page.module.css';
import { conditionInWords } from './words';

/** The job that a tested event would create. */
export function PreviewedJob({ job }: { job: JobPreview }) {
  const { config, configOrigins, workspaceSetup: setup, chainNext: next } = job;
  return (
    <>
      <Panel title="Job">
        <div className={pageStyles.pad}>
          <dl className={styles.facts}>
            <div>
              <dt>Type</dt>
              <dd>{visible(job.type)}</dd>
            </div>
            <div>
              <dt>Provider</dt>
              <dd>
                {visible(config.provider)}
                {origin(configOrigins, 'provider')}
              </dd>
            </div>
            <div>
              <dt>Model</dt>
              <dd>
                {visible(config.model)}
                {origin(configOrigins, 'model')}
              </dd>
            </div>
            <div>
              <dt>Repository</dt>
              <dd>{setup ? visible(setup.gitRepo) : 'none'}</dd>
            </div>
            {setup && (
              <div>
                <dt>Ref</dt>
                <dd>{setup.gitRef === null ? 'default branch' : visible(setup.gitRef)}</dd>
              </div>
            )}
            {setup && <SetupFacts setup={setup} />}
            {setup && (
              <div>
                <dt>Credential</dt>
                <dd>{setup.hasCredential ? 'a token, which is never shown' : 'none'}</dd>
              </div>
            )}
            {job.concurrency && (
              <div>
                <dt>Concurrency key</dt>
                <dd>{visible(job.concurrency.key)}</dd>
              </div>
            )}
            <div>
              <dt>Next agent</dt>
              <dd>
                {next
                  ? visible(`${next.agent}, ${conditionInWords({ condition: next.condition, failurePolicy: 'stop' })}`)
                  : 'none'}
              </dd>
            </div>
          </dl>
        </div>
      </Panel>
      <Panel title="Other settings">
        <Table label="Other settings" columns={[['Setting'], ['Value'], ['From']]}>
          {settingsOf(config)
            .filter(([name]) => name !== 'provider' && name !== 'model')
            .map(([name, value]) => (
              <tr key={name}>
                <td className={cell.name}>{settingName(name)}</td>
                <td>
                  <SettingValue name={name} value={value} />
                </td>
                <td>{configOrigins[name] ?? ''}</td>
              </tr>
            ))}
        </Table>
      </Panel>
      <Panel title="Metadata">
        <div className={pageStyles.pad}>
          <JsonTree value={job.metadata} />
        </div>
      </Panel>
      <Panel title="Prompt" note={<Copy text={job.prompt} label="Copy the prompt" />}>
        <div className={`${styles.preview} ${pageStyles.pad}`}>
          <pre>{visibleLines(job.prompt)}</pre>
        </div>
      </Panel>
    </>
  );
}

function origin(origins: JobPreview['configOrigins'], name: string): string {
  return origins[name] === undefined ? '' : `, from ${origins[name]}`;
}
