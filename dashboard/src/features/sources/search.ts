import type { DeliveryOutcome } from '../../api/sources';
import { isSet, oneOf, text } from '../../lib/search';

export const OUTCOMES = [
  'started',
  'unmatched',
  'ignored',
  'command',
  'ping',
  'refused',
] as const satisfies readonly DeliveryOutcome[];

export interface SourcesSearch {
  /** The dialog of a new source is open. */
  create?: true;
  /** The dialog that connects GitHub is open. */
  connect?: true;
  /** With these, GitHub sends the browser back after an App was created. */
  code?: string;
  state?: string;
}

export function validateSourcesSearch(search: Record<string, unknown>): SourcesSearch {
  const code = text(search['code']);
  const state = text(search['state']);
  return {
    ...(isSet(search['create']) && { create: true }),
    ...(isSet(search['connect']) && { connect: true }),
    ...(code && { code }),
    ...(code && state && { state }),
  };
}

export interface SourceSearch {
  /** Only deliveries with this outcome are listed. */
  outcome?: DeliveryOutcome;
}

export function validateSourceSearch(search: Record<string, unknown>): SourceSearch {
  const outcome = oneOf(search['outcome'], OUTCOMES);
  return outcome ? { outcome } : {};
}
