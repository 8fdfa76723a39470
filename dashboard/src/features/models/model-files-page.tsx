import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';

import { ApiError } from '../../api/client';
import { useLive } from '../../api/live';
import {
  deleteFile,
  downloadFile,
  modelFilesQuery,
  operationLogQuery,
  operationsQuery,
  scanQuery,
  type FileOperation,
} from '../../api/models';
import { visible } from '../../lib/ansi';
import { bytes, NOTHING } from '../../lib/format';
import { useMayChange } from '../../ui/access';
import { Button, IconButton } from '../../ui/button';
import { Confirm } from '../../ui/confirm';
import { Dialog } from '../../ui/dialog';
import { Panel } from '../../ui/page';
import { describe, Empty, Failure, Loading } from '../../ui/states';
import { StatusBadge } from '../../ui/status';
import { cell, Table } from '../../ui/table';
import { Age, Span } from '../../ui/time';
import { toast } from '../../ui/toasts';
import { fileRows, type FileRow, type FileState } from './files';
import styles from './model-files-page.module.css';
import { ModelsLayout } from './models-layout';

const STATE_WORDS: Record<FileState, string> = {
  present: 'On the volume',
  incomplete: 'Incomplete',
  missing: 'Not downloaded',
  unknown: 'Not scanned yet',
  none: 'No file in the settings',
};

export function ModelFilesPage() {
  const queries = useQueryClient();
  const mayChange = useMayChange(); // a scan counts as a change
  const configured = useQuery(modelFilesQuery);
  const isLocal = configured.data?.folder != null; // a scan of a claim needs a pod, so a person starts it
  const scan = useQuery({ ...scanQuery, enabled: isLocal && mayChange });
  const operations = useQuery({ ...operationsQuery, enabled: configured.data !== undefined });
  const isBusy = operations.data?.jobs.some((each) => each.status === 'waiting' || each.status === 'active') ?? false;
  useLive(
    [operationsQuery, ...(isBusy && isLocal && mayChange ? [scanQuery] : [])].map(({ queryKey }) => ({
      queryKey,
      exact: true,
    })),
    configured.data !== undefined,
  );
  const refresh = () => queries.invalidateQueries({ queryKey: modelFilesQuery.queryKey });

  if (configured.error instanceof ApiError && configured.error.status === 501) {
    return (
      <ModelsLayout>
        <Empty title="No volume for model files">{describe(configured.error).message}.</Empty>
      </ModelsLayout>
    );
  }
  const error = configured.error ?? operations.error;
  const rows = configured.data && fileRows(configured.data.models, scan.data?.files, operations.data?.jobs ?? []);
  return (
    <ModelsLayout
      actions={
        <Button isChanging isBusy={scan.isFetching} onClick={() => void scan.refetch().then(refresh)}>
          {scan.isFetching ? 'Scanning…' : 'Scan the volume'}
        </Button>
      }
    >
      <div className={styles.panels}>
        {error && <Failure error={error} onRetry={() => void refresh()} />}
        {scan.error && <Failure error={scan.error} onRetry={() => void scan.refetch()} />}
        {!error && !rows && <Loading rows={5} height={44} />}
        {!error && rows && rows.length === 0 && (
          <Empty title="No model files">
            The files of local models are named in the <Link to="/settings/defaults">default settings</Link> of their
            provider, each with its address. Then they can be downloaded here.
          </Empty>
        )}
        {configured.data && rows && rows.length > 0 && (
          <Panel
            title="Files"
            note={
              <Place
                folder={configured.data.folder}
                claim={configured.data.pvcName}
                scannedAt={scan.data?.scannedAt ?? configured.data.scannedAt}
              />
            }
          >
            <Table
              label="Files"
              columns={[
                ['File'],
                ['Model', cell.minor],
                ['State'],
                ['Size', `${cell.number} ${cell.minor}`],
                ['Actions', cell.end],
              ]}
            >
              {rows.map((row) => (
                <File key={row.key} row={row} onChanged={refresh} />
              ))}
            </Table>
          </Panel>
        )}
        {operations.data && operations.data.jobs.length > 0 && (
          <Panel title="Downloads and deletions">
            <Table
              label="Downloads and deletions"
              columns={[
                ['Operation'],
                ['File'],
                ['Status'],
                ['Started', cell.minor],
                ['Took', `${cell.number} ${cell.minor}`],
                ['Actions', cell.end],
              ]}
            >
              {operations.data.jobs.map((operation) => (
                <Operation key={operation.name} operation={operation} />
              ))}
            </Table>
          </Panel>
        )}
      </div>
    </ModelsLayout>
  );
}

function Place({
  folder,
  claim,
  scannedAt,
}: {
  folder: string | null;
  claim: string | null;
  scannedAt: string | null;
}) {
  return (
    <span className={styles.place}>
      {folder ? (
        <>
          in <code>{folder}</code>
        </>
      ) : claim ? (
        <>
          on the claim <code>{claim}</code>
        </>
      ) : null}
      {scannedAt && (
        <>
          , scanned <Age at={scannedAt} suffix=" ago" />
        </>
      )}
    </span>
  );
}

function File({ row, onChanged }: { row: FileRow; onChanged: () => Promise<unknown> }) {
  const [isDeleting, setDeleting] = useState(false);
  const { provider, model, filename, url } = row;
  const name = filename ?? '';
  const download = useMutation({
    mutationFn: () => downloadFile({ provider: provider as 'qwen', model: model ?? '', url: url ?? '' }),
    onSuccess: () => toast(`The download of ${name} has started.`),
    onError: (error) => toast(describe(error).message, 'error'),
    onSettled: onChanged,
  });
  const isOnVolume = row.state === 'present' || row.state === 'incomplete';
  return (
    <tr>
      <td className={cell.name}>
        {filename === null ? NOTHING : visible(filename)}
        {!row.isConfigured && <p className={styles.note}>not in the settings</p>}
      </td>
      <td className={cell.minor}>
        {provider}
        {model && `/${visible(model)}`}
      </td>
      <td>
        {row.operation
          ? row.operation.operation === 'download'
            ? 'Downloading…'
            : 'Deleting…'
          : STATE_WORDS[row.state]}
      </td>
      <td className={`${cell.number} ${cell.minor}`}>{row.size === null ? NOTHING : bytes(row.size)}</td>
      <td className={cell.end}>
        {!row.operation && url && row.state !== 'present' && (
          <Button isChanging icon="download" isBusy={download.isPending} onClick={() => download.mutate()}>
            {row.state === 'incomplete' ? 'Resume' : 'Download'}
          </Button>
        )}
        {!row.operation && isOnVolume && (
          <IconButton isChanging icon="trash" label={`Delete ${name}`} onClick={() => setDeleting(true)} />
        )}
        {isDeleting && (
          <Confirm
            title={`Delete ${name}?`}
            action="Delete the file"
            onClose={() => setDeleting(false)}
            run={() => deleteFile(provider, name)}
            onDone={async () => {
              setDeleting(false);
              toast(`${name} is being deleted.`);
              await onChanged();
            }}
          >
            <p>
              {row.isConfigured
                ? 'It can be downloaded again. A model server that has loaded it keeps running until it restarts.'
                : 'It is not in the settings, so it cannot be downloaded again from here.'}
            </p>
          </Confirm>
        )}
      </td>
    </tr>
  );
}

function Operation({ operation }: { operation: FileOperation }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <tr>
      <td>{operation.operation === 'download' ? 'Download' : 'Deletion'}</td>
      <td className={cell.name}>
        {visible(operation.filename)}
        {operation.failedReason && <p className={styles.failed}>{visible(operation.failedReason)}</p>}
      </td>
      <td>
        <StatusBadge status={operation.status} />
        {operation.receivedBytes !== null && (
          <Received received={operation.receivedBytes} total={operation.totalBytes} />
        )}
      </td>
      <td className={cell.minor}>
        <Age at={operation.createdAt} suffix=" ago" />
      </td>
      <td className={`${cell.number} ${cell.minor}`}>
        <Span from={operation.createdAt} to={operation.finishedAt} />
      </td>
      <td className={cell.end}>
        <Button onClick={() => setOpen(true)}>Log</Button>
        {isOpen && <LogDialog operation={operation} onClose={() => setOpen(false)} />}
      </td>
    </tr>
  );
}

function Received({ received, total }: { received: number; total: number | null }) {
  if (total === null) return <p className={styles.note}>{bytes(received)}</p>;
  return (
    <p className={styles.note}>
      <progress aria-label="Received" value={received} max={total} /> {bytes(received)} of {bytes(total)}
    </p>
  );
}

function LogDialog({ operation, onClose }: { operation: FileOperation; onClose: () => void }) {
  const hasEnded = operation.status === 'completed' || operation.status === 'failed';
  const log = useQuery(operationLogQuery(operation.name));
  useLive([operationLogQuery(operation.name)], !hasEnded);
  return (
    <Dialog title={`Log of ${operation.filename}`} size="medium" onClose={onClose}>
      {log.isLoadingError ? (
        <Failure error={log.error} onRetry={() => void log.refetch()} />
      ) : !log.data ? (
        <Loading rows={4} />
      ) : (
        <pre className={styles.log}>
          {log.data.logs.length === 0 ? 'The log is empty so far.' : log.data.logs.map(visible).join('\n')}
        </pre>
      )}
    </Dialog>
  );
}
