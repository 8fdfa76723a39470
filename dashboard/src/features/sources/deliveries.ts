/** The outcomes of deliveries, in words. */

import type { Delivery, DeliveryOutcome, WebhookSource } from '../../api/sources';
import { counted } from '../../lib/format';
import type { IconName } from '../../ui/icons';

export const OUTCOME_WORDS: Record<DeliveryOutcome, string> = {
  started: 'Started',
  unmatched: 'No match',
  ignored: 'Ignored',
  command: 'Command',
  ping: 'Ping',
  refused: 'Refused',
};

export const OUTCOME_ICONS: Record<DeliveryOutcome, IconName> = {
  started: 'check',
  unmatched: 'search',
  ignored: 'close',
  command: 'keyboard',
  ping: 'hook',
  refused: 'warning',
};

const WITHOUT_REASON: Record<DeliveryOutcome, string> = {
  started: 'It started jobs.',
  unmatched: 'No trigger of an agent matches.',
  ignored: 'The settings of the source exclude it.',
  command: 'The comment has a command.',
  ping: 'A test of the address and the secret: both are right.',
  refused: 'It was answered with an error.',
};

/** The API shortens a reason to this length. */
const LONGEST_REASON = 120;

/** The API lists at most this many jobs of a delivery. */
const MOST_JOBS = 10;

/** The effect of a delivery, or why it had none, as a sentence. The links to its jobs follow after a colon. */
export function deliverySentence({ outcome, reason, jobs }: Pick<Delivery, 'outcome' | 'reason' | 'jobs'>): string {
  if (jobs.length > 0)
    return jobs.length < MOST_JOBS ? `${counted(jobs.length, 'job')}:` : `At least ${counted(jobs.length, 'job')}:`;
  if (!reason) return WITHOUT_REASON[outcome];
  return `${reason.charAt(0).toUpperCase()}${reason.slice(1)}${reason.length < LONGEST_REASON ? '.' : '…'}`;
}

/** How to send a source its first delivery. */
export function howToSend({ type, enabled }: Pick<WebhookSource, 'type' | 'enabled'>): string {
  const steps =
    type === 'github'
      ? 'To send one, enter the address above and the secret in a repository or organisation on GitHub, under Settings, Webhooks. GitHub then sends a ping.'
      : 'To send one, sign a JSON object with the secret, as in the Standard Webhooks specification, and post it to the address above.';
  return enabled ? steps : `The source is off: turn it on first. ${steps}`;
}
