/** The conditions of a webhook source, in words. */

import type { WebhookSource } from '../../api/sources';

/** The reason of a source that was switched off. */
export const OFF = 'SwitchedOff';

export function conditionInWords({ type, status, reason, message }: WebhookSource['conditions'][number]): string {
  if (status === 'True') return `${type}: ${message}`;
  if (reason === OFF) return 'Switched off: it refuses deliveries.';
  return `${type} is ${status === 'False' ? 'false' : 'unknown'} (${reason}): ${message}`;
}
