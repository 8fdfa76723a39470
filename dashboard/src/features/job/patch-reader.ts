/** A patch that a worker holds. The page gets the list of files, and the lines that it shows. */

import { errorOf } from '../../api/client';
import { sessionHeaders } from '../../api/session-secret';
import type { PatchFile, PatchLine } from './patch';
import workerUrl from './patch-worker?worker&url';

export interface PatchIndex {
  files: PatchFile[];
  /** The size of the patch. */
  bytes: number;
  /** Grows with each change of the patch. */
  version: number;
}

export type PatchRequest =
  | { kind: 'open'; url: string; headers: Record<string, string> }
  | { kind: 'chunks'; file: number }
  | { kind: 'lines'; file: number; chunk: number };

export interface PatchAnswer {
  id: number;
  result:
    | { index: Omit<PatchIndex, 'version'>; isChanged: boolean }
    | { chunks: number[] }
    | { lines: PatchLine[] }
    | { refusal: { status: number; body: unknown } }
    | { failure: string };
}

interface TrustedTypes {
  createPolicy: (
    name: string,
    rules: { createScriptURL: (url: string) => string },
  ) => { createScriptURL: (url: string) => string };
}

/** The policy of the page allows workers only from URLs that a named policy has made. It makes this one only. */
const policy = (globalThis as { trustedTypes?: TrustedTypes }).trustedTypes?.createPolicy('labrats-worker', {
  createScriptURL: (url) => {
    if (url !== workerUrl) throw new TypeError('not a worker of the dashboard');
    return url;
  },
});

function unreadable(reason: string): Error {
  return new Error(`The patch cannot be read: ${reason}.`);
}

export class PatchReader {
  private worker: Worker | undefined;
  private lastId = 0;
  private version = 0;
  private readonly waiting = new Map<number, (result: PatchAnswer['result']) => void>();

  constructor(readonly url: string) {}

  /** Fetch the patch, also anew. Return null if there is none. Throws ApiError. */
  async open(): Promise<PatchIndex | null> {
    const result = await this.ask({ kind: 'open', url: this.url, headers: sessionHeaders() });
    if ('index' in result) {
      if (result.isChanged) this.version++;
      return { ...result.index, version: this.version };
    }
    if ('refusal' in result && result.refusal.status === 404) return null;
    if ('refusal' in result) throw errorOf(result.refusal.status, result.refusal.body);
    throw unreadable('failure' in result ? result.failure : 'its worker gave another answer');
  }

  /** The numbers of lines in the chunks of a file. */
  async chunks(file: number): Promise<number[]> {
    const result = await this.askOpen({ kind: 'chunks', file });
    return 'chunks' in result ? result.chunks : [];
  }

  async lines(file: number, chunk: number): Promise<PatchLine[]> {
    const result = await this.askOpen({ kind: 'lines', file, chunk });
    return 'lines' in result ? result.lines : [];
  }

  close(): void {
    this.worker?.terminate();
    this.worker = undefined;
  }

  /** Ask a worker that has the patch: one that is started after a failure has none. */
  private async askOpen(request: PatchRequest): Promise<PatchAnswer['result']> {
    if (!this.worker) await this.open();
    const result = await this.ask(request);
    if ('failure' in result) throw unreadable(result.failure);
    return result;
  }

  private ask(request: PatchRequest): Promise<PatchAnswer['result']> {
    this.worker ??= this.start();
    const id = ++this.lastId;
    const { promise, resolve } = Promise.withResolvers<PatchAnswer['result']>();
    this.waiting.set(id, resolve);
    this.worker.postMessage({ id, request });
    return promise;
  }

  private start(): Worker {
    const worker = new Worker(policy ? policy.createScriptURL(workerUrl) : workerUrl, { type: 'module' });
    worker.onmessage = ({ data: { id, result } }: MessageEvent<PatchAnswer>) => {
      this.waiting.get(id)?.(result);
      this.waiting.delete(id);
    };
    worker.onerror = ({ message }: Partial<ErrorEvent>) => {
      for (const resolve of this.waiting.values()) resolve({ failure: message ?? 'its worker could not be loaded' });
      this.waiting.clear();
      this.close(); // the next request starts another
    };
    return worker;
  }
}
