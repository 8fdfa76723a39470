/** Server-sent events, read with fetch: an EventSource cannot send the headers of the session. */

import { sessionHeaders } from './session-secret';

export interface StreamedEvent {
  id: string | undefined;
  data: string;
}

/** Splits the text of a stream into its events, however the network cuts it. Comments are dropped. */
export class EventParser {
  private rest = '';

  /** Return the events that are complete with this piece of text. */
  push(text: string): StreamedEvent[] {
    const frames = (this.rest + text).split('\n\n');
    this.rest = frames.pop() ?? '';
    return frames.flatMap((frame) => {
      const event = parse(frame);
      return event ? [event] : [];
    });
  }
}

function parse(frame: string): StreamedEvent | undefined {
  let id: string | undefined;
  const data: string[] = [];
  for (const line of frame.split('\n')) {
    if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
    else if (line.startsWith('id:')) id = line.slice(3).trim();
  }
  return data.length > 0 ? { id, data: data.join('\n') } : undefined;
}

/** The silence after which a connection counts as lost. The engine sends a comment every 15 seconds. */
const DEAD_MS = 40_000;

/** The engine, or a proxy, answers a request for a stream with something else. */
export class StreamRefused extends Error {
  constructor(readonly response: Response) {
    super(`the stream was refused with status ${response.status}`);
  }
}

export interface StreamReader {
  headers?: Record<string, string>;
  signal: AbortSignal;
  onOpen: () => void;
  /** Called with each piece of the stream. One that only keeps the connection open has no events. */
  onEvents: (events: StreamedEvent[]) => void;
  fetch?: typeof fetch;
}

/** Read a stream to its end. Throws StreamRefused, or the error of a connection that is lost, silent or aborted. */
export async function readStream(
  url: string,
  { headers, signal, onOpen, onEvents, ...by }: StreamReader,
): Promise<void> {
  const lost = new AbortController();
  let silence = setTimeout(() => lost.abort(), DEAD_MS);
  try {
    const response = await (by.fetch ?? fetch)(url, {
      headers: { Accept: 'text/event-stream', ...sessionHeaders(), ...headers },
      signal: AbortSignal.any([signal, lost.signal]),
    });
    if (!response.ok || !response.body) throw new StreamRefused(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    onOpen();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => lost.abort(), DEAD_MS);
      onEvents(parser.push(value));
    }
  } finally {
    lost.abort(); // a reader that throws must not keep the connection
    clearTimeout(silence);
  }
}

/** Wait, but not once the signal is aborted. */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
