import { useQuery } from '@tanstack/react-query';

import { readyQuery, systemQuery, type System } from '../../api/keys';
import { useLive } from '../../api/live';
import { visible } from '../../lib/ansi';
import { bytes, count, fullTime, span } from '../../lib/format';
import { networkText } from '../../lib/network';
import { Icon } from '../../ui/icons';
import { Panel } from '../../ui/page';
import { ProviderList } from '../../ui/providers';
import { describe, Failure, Loading } from '../../ui/states';
import { PausePanel } from './pause-panel';
import { SettingsLayout } from './settings-layout';
import styles from './settings.module.css';

const LINKS = [
  ['API reference', '/api/docs'],
  ['OpenAPI document', '/api/openapi.json'],
  ['Metrics for Prometheus', '/metrics'],
  ['Liveness', '/health'],
  ['Readiness', '/ready'],
] as const;
const HOUR = 3_600_000;

export function SystemPage() {
  const system = useQuery(systemQuery);
  const ready = useQuery(readyQuery);
  useLive([systemQuery, readyQuery]);
  return (
    <SettingsLayout>
      {system.isLoadingError ? (
        <Failure error={system.error} onRetry={() => void system.refetch()} />
      ) : !system.data ? (
        <Loading rows={8} height={34} />
      ) : (
        <div className={styles.panels}>
          <Panel title="Engine">
            <dl className={styles.facts}>
              <div>
                <dt>Health</dt>
                <dd>
                  <Health error={ready.error} isReady={ready.data !== undefined} />
                </dd>
              </div>
              <Facts system={system.data} />
            </dl>
          </Panel>
          <PausePanel />
          <Panel title="Limits">
            <dl className={styles.facts}>
              <Limits limits={system.data.limits} />
            </dl>
          </Panel>
          <Panel title="Network and isolation">
            <Containment containment={system.data.containment} />
          </Panel>
          {(system.data.providers as System['providers'] | undefined) && (
            <Panel title="Providers">
              <ProviderList />
            </Panel>
          )}
          <Panel title="Addresses">
            <div className={styles.links}>
              {LINKS.map(([label, path]) => (
                <a key={path} href={path} target="_blank" rel="noopener">
                  {label} <code>{path}</code>
                </a>
              ))}
            </div>
          </Panel>
        </div>
      )}
    </SettingsLayout>
  );
}

function Health({ error, isReady }: { error: unknown; isReady: boolean }) {
  if (error)
    return (
      <span className={`${styles.state} ${styles.bad}`}>
        <Icon name="warning" /> Not ready: {describe(error).message}
      </span>
    );
  return isReady ? (
    <span className={`${styles.state} ${styles.good}`}>
      <Icon name="check" /> Ready
    </span>
  ) : (
    <>…</>
  );
}

function Facts({ system }: { system: System }) {
  const { freeBytes, totalBytes } = system.disk;
  const used = totalBytes === 0 ? 0 : (totalBytes - freeBytes) / totalBytes;
  return (
    <>
      <div>
        <dt>Version</dt>
        <dd>{system.version}</dd>
      </div>
      <div>
        <dt>Backend</dt>
        <dd>{system.backend === 'embedded' ? 'embedded: SQLite and local processes' : 'Kubernetes'}</dd>
      </div>
      <div>
        <dt>Role of this replica</dt>
        <dd>
          {system.role}
          {system.drivesJobs ? ', it can start jobs' : ', a controller starts jobs'}
        </dd>
      </div>
      <div>
        <dt>Controller</dt>
        <dd>
          <Controller controller={system.controller} />
        </dd>
      </div>
      <div>
        <dt>Its clock</dt>
        <dd>{fullTime(new Date(system.time))}</dd>
      </div>
      <div>
        <dt>Disk</dt>
        <dd>
          {bytes(freeBytes)} free of {bytes(totalBytes)}
          <span className={styles.disk} role="img" aria-label={`${Math.round(used * 100)} percent used`}>
            <span style={{ width: `${used * 100}%` }} />
          </span>
        </dd>
      </div>
    </>
  );
}

function Controller({ controller: { alive, name, renewedAt } }: { controller: System['controller'] }) {
  const who = name === null ? '' : `, ${name}`;
  if (alive === null) return <>Unknown: this engine cannot read its lease</>;
  if (alive)
    return (
      <span className={`${styles.state} ${styles.good}`}>
        <Icon name="check" /> Alive{who}
      </span>
    );
  return (
    <span className={`${styles.state} ${styles.bad}`}>
      <Icon name="warning" /> No controller is alive, so no job starts
      {renewedAt && `. The last sign of life${who}: ${fullTime(new Date(renewedAt))}`}
    </span>
  );
}

function Limits({ limits }: { limits: System['limits'] }) {
  const rows = [
    ['Prompt', bytes(limits.promptBytes)],
    ['Metadata', bytes(limits.metadataBytes)],
    ['Files in a submission', bytes(limits.filesBytes)],
    ['Output of an attempt', bytes(limits.outputBytes)],
    ['Waiting jobs', count(limits.waitingJobs)],
    ['Slots of an implicit model', count(limits.defaultModelSlots)],
    ['A waiting job gains a level of priority after', span(limits.priorityAgingSeconds * 1000)],
    ['Agents in a chain', count(limits.chainDepth + 1)],
    ['Workspaces are kept for', span(limits.workspaceRetentionHours * HOUR)],
    ['Jobs are kept for', span(limits.jobRetentionDays * 24 * HOUR)],
  ] as const;
  return (
    <>
      {rows.map(([label, value]) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </>
  );
}

const NETWORKS = {
  open: 'open: all hosts',
  public: 'public: hosts with public addresses',
  none: 'none: only the server of the model',
};

/** The defaults for jobs. containment: undefined if a replica of an earlier version has answered. */
function Containment({ containment }: { containment: System['containment'] | undefined }) {
  if (!containment) return <p className={styles.note}>An engine of an earlier version does not report them.</p>;
  const { network, networkProblem, isolation, isolationOfUntrusted, isolationLevels } = containment;
  const rows = [
    ['Network of jobs that name none', typeof network === 'string' ? NETWORKS[network] : networkText(network)],
    ['Network rules', networkProblem === null ? 'work here' : `do not work here: ${networkProblem}`],
    ['Isolation of jobs that name none', isolation],
    ['Isolation of jobs of external contributors', `at least ${isolationOfUntrusted}`],
    ['Levels that work here', isolationLevels.join(', ')],
  ] as const;
  return (
    <dl className={styles.facts}>
      {rows.map(([label, value]) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd>{visible(value)}</dd>
        </div>
      ))}
    </dl>
  );
}
