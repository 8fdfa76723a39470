/** A parser for server-sent events, for streams that are read with fetch. */

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
