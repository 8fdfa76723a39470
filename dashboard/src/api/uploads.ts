/** Uploaded files: PDFs to extract, and files for workspaces. */

import { queryOptions } from '@tanstack/react-query';

import { ApiError, body, client, errorOf, isProxyError, reportReachable, UNREACHABLE, type Schemas } from './client';
import { sessionHeaders } from './session-secret';

export type Upload = Schemas['UploadView'];
export type UploadKind = 'pdfs' | 'workspace';

const ADDRESSES: Record<UploadKind, string> = { pdfs: '/api/uploads', workspace: '/api/workspace-uploads' };

export const uploadsQuery = (kind: UploadKind) =>
  queryOptions({
    queryKey: ['uploads', kind],
    queryFn: async ({ signal }): Promise<Upload[]> =>
      kind === 'pdfs'
        ? (await body(client.GET('/api/uploads', { signal }))).uploads
        : (await body(client.GET('/api/workspace-uploads', { signal }))).files,
  });

/** Upload a file. onProgress: called with the share that is sent. Requests of `fetch` report no progress. */
export function uploadFile(
  kind: UploadKind,
  file: File,
  onProgress: (share: number) => void,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append('file', file);
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    };
    request.onload = () => {
      const answer = parsed(request.responseText);
      reportReachable(!isProxyError(request.status, answer));
      if (request.status < 300) resolve();
      else reject(errorOf(request.status, answer));
    };
    request.onerror = () => {
      reportReachable(false);
      reject(new ApiError(0, UNREACHABLE, 'The connection broke while the file was sent.'));
    };
    request.onabort = () => reject(new ApiError(0, 'cancelled', 'The upload was cancelled.'));
    signal.addEventListener('abort', () => request.abort());
    request.open('POST', ADDRESSES[kind]);
    for (const [name, value] of Object.entries(sessionHeaders())) request.setRequestHeader(name, value);
    request.send(form);
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}

export async function deleteUpload(kind: UploadKind, id: string): Promise<void> {
  const params = { params: { path: { upload_id: id } } };
  await (kind === 'pdfs'
    ? body(client.DELETE('/api/uploads/{upload_id}', params))
    : body(client.DELETE('/api/workspace-uploads/{upload_id}', params)));
}

/** Start the job that reads a PDF section by section. */
export async function extractPdf(id: string, extraction: Schemas['Extraction'], key: string): Promise<string> {
  const answer = await body(
    client.POST('/api/uploads/{upload_id}/extract', {
      body: extraction,
      params: { path: { upload_id: id }, header: { 'Idempotency-Key': key } },
    }),
  );
  return answer.jobId;
}

export function downloadAddress(upload: Upload): string {
  return `/api/workspace-uploads/${encodeURIComponent(upload.id)}/${encodeURIComponent(upload.name)}/raw`;
}
