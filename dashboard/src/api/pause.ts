/** The pause of the whole engine. */

import { queryOptions } from '@tanstack/react-query';

import { visible } from '../lib/ansi';
import { fullTime } from '../lib/format';
import { body, client, type Schemas } from './client';

export type Pause = Schemas['PauseView'];

export const pauseQuery = queryOptions({
  queryKey: ['pause'],
  queryFn: ({ signal }) => body(client.GET('/api/pause', { signal })),
});

export async function setPause(paused: boolean, reason = ''): Promise<Pause> {
  return body(client.PUT('/api/pause', { body: { paused, reason } }));
}

/** Who has paused the engine, when and why. */
export function pauseWords({ by, since, reason }: Pause): string {
  const when = since === null ? '' : ` since ${fullTime(new Date(since))}`;
  return `The engine is paused by ${visible(by ?? 'somebody')}${when}${reason ? `: ${visible(reason)}.` : '.'}`;
}
