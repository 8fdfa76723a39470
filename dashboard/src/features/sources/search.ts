import type { DeliveryOutcome } from '../../api/sources';
import { oneOf } from '../../lib/search';

export const OUTCOMES = [
  'started',
  'unmatched',
  'ignored',
  'command',
  'ping',
  'refused',
] as const satisfies readonly DeliveryOutcome[];

export interface SourceSearch {
  /** Only deliveries with this outcome are listed. */
  outcome?: DeliveryOutcome;
}

export function validateSourceSearch(search: Record<string, unknown>): SourceSearch {
  const outcome = oneOf(search['outcome'], OUTCOMES);
  return outcome ? { outcome } : {};
}
