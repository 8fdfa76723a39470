import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useEffect, useRef, useState, type ReactNode } from 'react';

import { fetchJobs, type JobItem } from '../../api/jobs';
import { useLive } from '../../api/live';
import { deleteUpload, downloadAddress, uploadsQuery, type Upload, type UploadKind } from '../../api/uploads';
import { visible } from '../../lib/ansi';
import { bytes, counted } from '../../lib/format';
import { Changing } from '../../ui/access';
import { Button, buttonClass, IconButton } from '../../ui/button';
import { Confirm } from '../../ui/confirm';
import { Copy } from '../../ui/copy';
import { Download } from '../../ui/download';
import { Icon } from '../../ui/icons';
import { Page, Panel } from '../../ui/page';
import { Failure, Loading } from '../../ui/states';
import { StatusBadge } from '../../ui/status';
import { SubNav } from '../../ui/sub-nav';
import { cell, Table } from '../../ui/table';
import { Age } from '../../ui/time';
import { toast } from '../../ui/toasts';
import { ExtractDialog } from './extract-dialog';
import styles from './files-page.module.css';
import { useUploads, type Sending } from './use-uploads';

export function PdfsPage() {
  return (
    <Layout>
      <Changing>
        <DropZone kind="pdfs" accept="application/pdf,.pdf" title="Drop PDFs here">
          At most 100 MiB each. An extraction runs one prompt on each section.
        </DropZone>
      </Changing>
      <Uploads kind="pdfs" title="PDFs" />
      <Extractions />
    </Layout>
  );
}

export function WorkspacePage() {
  return (
    <Layout>
      <Changing>
        <DropZone kind="workspace" title="Drop files here">
          At most 100 MiB each. A submission names them in `workspaceUploads`, and they appear at the root of its
          workspace.
        </DropZone>
      </Changing>
      <Uploads kind="workspace" title="Workspace files" />
    </Layout>
  );
}

function Layout({ children }: { children: ReactNode }) {
  return (
    <Page title="Files">
      <SubNav label="Kinds of files">
        <Link to="/files/pdfs">PDFs</Link>
        <Link to="/files/workspace">Workspace</Link>
      </SubNav>
      <div className={styles.parts}>{children}</div>
    </Page>
  );
}

/** A place to drop files. The button does the same without dragging. */
function DropZone({
  kind,
  title,
  accept,
  children,
}: {
  kind: UploadKind;
  title: string;
  accept?: string;
  children: string;
}) {
  const input = useRef<HTMLInputElement>(null);
  const [isOver, setOver] = useState(false);
  const { sendings, send, cancel, dismiss } = useUploads(kind);
  useEffect(() => {
    // A file dropped beside the zone would replace the page
    const ignore = (event: DragEvent) => event.preventDefault();
    document.addEventListener('dragover', ignore);
    document.addEventListener('drop', ignore);
    return () => {
      document.removeEventListener('dragover', ignore);
      document.removeEventListener('drop', ignore);
    };
  }, []);
  return (
    <div
      className={styles.zone}
      data-over={isOver || undefined}
      onDragOver={() => setOver(true)}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        setOver(false);
        send([...event.dataTransfer.files]);
      }}
    >
      <Icon name="upload" />
      <p>
        <b>{title}</b>, or <Button onClick={() => input.current?.click()}>Choose files</Button>
      </p>
      <p className={styles.note}>
        {children.split('`').map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}
      </p>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        accept={accept}
        aria-label={title}
        onChange={(event) => {
          send([...(event.target.files ?? [])]);
          event.target.value = '';
        }}
      />
      {sendings.length > 0 && (
        <ul className={styles.sendings}>
          {sendings.map((each) => (
            <SendingLine
              key={each.id}
              sending={each}
              onCancel={() => cancel(each.id)}
              onDismiss={() => dismiss(each.id)}
            />
          ))}
        </ul>
      )}
    </div>
  );
}

function SendingLine({
  sending,
  onCancel,
  onDismiss,
}: {
  sending: Sending;
  onCancel: () => void;
  onDismiss: () => void;
}) {
  const { name, share, error } = sending;
  return (
    <li>
      <span>{visible(name)}</span>
      {error === undefined ? (
        <>
          <progress value={share} max={1} aria-label={`Upload of ${name}`} />
          <IconButton icon="close" label={`Cancel the upload of ${name}`} onClick={onCancel} />
        </>
      ) : (
        <>
          <span role="alert" className={styles.failed}>
            {error}
          </span>
          <IconButton icon="close" label={`Dismiss the failed upload of ${name}`} onClick={onDismiss} />
        </>
      )}
    </li>
  );
}

function Uploads({ kind, title }: { kind: UploadKind; title: string }) {
  const uploads = useQuery(uploadsQuery(kind));
  useLive([uploadsQuery(kind)]);
  if (uploads.isLoadingError) return <Failure error={uploads.error} onRetry={() => void uploads.refetch()} />;
  if (!uploads.data) return <Loading rows={4} height={44} />;
  if (uploads.data.length === 0)
    return <p className={styles.none}>{kind === 'pdfs' ? 'No PDF is uploaded.' : 'No file is uploaded.'}</p>;
  const size = uploads.data.reduce((sum, each) => sum + each.size, 0);
  return (
    <Panel
      title={title}
      note={
        <span className={styles.note}>
          {counted(uploads.data.length, 'file')}, {bytes(size)}
        </span>
      }
    >
      <Table
        label={title}
        columns={[['Name'], ['Size', `${cell.number} ${cell.minor}`], ['Uploaded', cell.number], ['Actions', cell.end]]}
      >
        {uploads.data.map((upload) => (
          <UploadRow key={upload.id} kind={kind} upload={upload} />
        ))}
      </Table>
    </Panel>
  );
}

function UploadRow({ kind, upload }: { kind: UploadKind; upload: Upload }) {
  const queries = useQueryClient();
  const [dialog, setDialog] = useState<'delete' | 'extract'>();
  const close = () => setDialog(undefined);
  const name = visible(upload.name);
  return (
    <tr>
      <td className={cell.name}>
        {name}
        {kind === 'workspace' && (
          <p className={styles.note}>
            <code>{upload.id}</code>{' '}
            <Copy
              text={JSON.stringify({ id: upload.id, name: upload.name })}
              name={`Copy the entry of ${name} for workspaceUploads`}
            />
          </p>
        )}
      </td>
      <td className={`${cell.number} ${cell.minor}`}>{bytes(upload.size)}</td>
      <td className={cell.number}>
        <Age at={upload.createdAt} suffix=" ago" />
      </td>
      <td className={cell.end}>
        {kind === 'pdfs' && (
          <Button isChanging icon="play" onClick={() => setDialog('extract')}>
            Extract
          </Button>
        )}
        {kind === 'workspace' && (
          <Download url={downloadAddress(upload)} file={upload.name} title={`Download ${name}`} />
        )}
        <IconButton isChanging icon="trash" label={`Delete ${name}`} onClick={() => setDialog('delete')} />
        {dialog === 'extract' && <ExtractDialog upload={upload} onClose={close} />}
        {dialog === 'delete' && (
          <Confirm
            title={`Delete ${name}?`}
            action="Delete the file"
            onClose={close}
            run={() => deleteUpload(kind, upload.id)}
            onDone={async () => {
              close();
              toast(`${name} is deleted.`);
              await queries.invalidateQueries({ queryKey: uploadsQuery(kind).queryKey });
            }}
          >
            <p>Jobs that use it have their own copy.</p>
          </Confirm>
        )}
      </td>
    </tr>
  );
}

/** The type of a job that reads a PDF. */
const EXTRACTION = 'document-extraction';
const EXTRACTIONS = ['uploads', 'extractions'];
const LATEST = 10;

/** The latest jobs that read a PDF. */
function Extractions() {
  const jobs = useQuery({
    queryKey: EXTRACTIONS,
    queryFn: ({ signal }) => fetchJobs({ type: EXTRACTION }, '', { limit: LATEST, signal }),
  });
  useLive([{ queryKey: EXTRACTIONS }]);
  if (jobs.isLoadingError) return <Failure error={jobs.error} onRetry={() => void jobs.refetch()} />;
  if (!jobs.data || jobs.data.jobs.length === 0) return null;
  return (
    <Panel
      title="Extractions"
      note={
        <Link to="/jobs" search={{ type: EXTRACTION }}>
          All
        </Link>
      }
    >
      <Table
        label="Extractions"
        columns={[['Status'], ['Job'], ['Model', cell.minor], ['Created', cell.number], ['Result', cell.end]]}
      >
        {jobs.data.jobs.map((job) => (
          <Extraction key={job.id} job={job} />
        ))}
      </Table>
    </Panel>
  );
}

function Extraction({ job }: { job: JobItem }) {
  return (
    <tr>
      <td>
        <StatusBadge status={job.status} />
      </td>
      <td className={cell.name}>
        <Link to="/jobs/$id/activity" params={{ id: job.id }}>
          {visible(job.title ?? job.name)}
        </Link>
      </td>
      <td className={cell.minor}>{visible(job.model)}</td>
      <td className={cell.number}>
        <Age at={job.createdAt} suffix=" ago" />
      </td>
      <td className={cell.end}>
        {job.status === 'completed' && (
          <Link to="/jobs/$id/result" params={{ id: job.id }} className={buttonClass()}>
            Sections
          </Link>
        )}
      </td>
    </tr>
  );
}
