import type { FilePatch } from './patch';
import workerUrl from './patch-worker?worker&url';

interface TrustedTypes {
  createPolicy: (name: string, rules: { createScriptURL: (url: string) => string }) => { createScriptURL: (url: string) => string };
}

/** The policy of the page allows workers only from URLs that a named policy has made. It makes this one only. */
const policy = (globalThis as { trustedTypes?: TrustedTypes }).trustedTypes?.createPolicy('labrats-worker', {
  createScriptURL: (url) => {
    if (url !== workerUrl) throw new TypeError('not a worker of the dashboard');
    return url;
  },
});

/** Parse a patch in a worker. */
export function parseInWorker(patch: string, signal: AbortSignal): Promise<FilePatch[]> {
  const worker = new Worker(policy ? policy.createScriptURL(workerUrl) : workerUrl, { type: 'module' });
  const { promise, resolve, reject } = Promise.withResolvers<FilePatch[]>();
  worker.onmessage = (message: MessageEvent<FilePatch[]>) => resolve(message.data);
  worker.onerror = (event) => reject(new Error(`The patch could not be read: ${event.message}`));
  signal.addEventListener('abort', () => reject(new DOMException('aborted', 'AbortError')));
  worker.postMessage(patch);
  return promise.finally(() => worker.terminate());
}
