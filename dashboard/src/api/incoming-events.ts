/** Events from outside, such as webhooks report them: test one, or send it. */

import { body, client, type Schemas } from './client';

export type IncomingEvent = Schemas['Event'];
export type EventTested = Schemas['EventTested'];
export type AgentVerdict = Schemas['AgentVerdict'];
export type TriggerVerdict = Schemas['TriggerVerdict'];
export type ThreadRequest = Schemas['ThreadRequestView'];
export type JobPreview = Schemas['JobPreview'];
export type StartedJob = Schemas['EventsJob'];

/** Report the jobs that an event would create. Creates nothing. */
export async function testEvent(event: Schemas['EventTest'], signal?: AbortSignal): Promise<EventTested> {
  return body(client.POST('/api/events/test', { body: event, ...(signal && { signal }) }));
}

/** Create the jobs of an event. key: repeated requests with the same key create them once. */
export async function sendEvent(event: IncomingEvent, key: string): Promise<Schemas['Ingested']> {
  return body(client.POST('/api/events/ingest', { body: event, params: { header: { 'Idempotency-Key': key } } }));
}
