/** The worker that fetches a patch and reads it, so that the page stays responsive. */

import { chunksOf, indexPatch, readChunk, type Chunk, type PatchFile } from './patch';
import type { PatchAnswer, PatchRequest } from './patch-reader';

let patch = new Uint8Array();
let files: PatchFile[] = [];
const chunks = new Map<number, Chunk[]>();

async function answer(request: PatchRequest): Promise<PatchAnswer['result']> {
  switch (request.kind) {
    case 'open': {
      const response = await fetch(request.url, { headers: request.headers }).catch(() => undefined);
      if (!response) return { refusal: { status: 0, body: null } };
      if (!response.ok)
        return { refusal: { status: response.status, body: (await response.json().catch(() => null)) as unknown } };
      const content = await response.arrayBuffer().catch(() => undefined);
      if (!content) return { refusal: { status: 0, body: null } }; // the connection broke
      const fetched = new Uint8Array(content);
      const isChanged = !isSame(fetched, patch);
      if (isChanged) {
        patch = fetched;
        files = indexPatch(patch);
        chunks.clear();
      }
      return { index: { files, bytes: patch.length }, isChanged };
    }
    case 'chunks':
      return { chunks: chunksOfFile(request.file).map(({ lines }) => lines) };
    case 'lines': {
      const chunk = chunksOfFile(request.file)[request.chunk];
      return { lines: chunk ? readChunk(patch, chunk) : [] };
    }
  }
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

function chunksOfFile(index: number): Chunk[] {
  const file = files[index];
  const known = chunks.get(index) ?? (file ? chunksOf(patch, file) : []);
  chunks.set(index, known);
  return known;
}

self.onmessage = (message: MessageEvent<{ id: number; request: PatchRequest }>) => {
  const { id, request } = message.data;
  answer(request).then(
    (result) => self.postMessage({ id, result } satisfies PatchAnswer),
    (error: unknown) => self.postMessage({ id, result: { failure: String(error) } } satisfies PatchAnswer),
  );
};
