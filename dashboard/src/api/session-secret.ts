/**
 * The secret of the session. The browser sends the cookie to every port of the engine's host, but shows the secret to
 * the pages of this port only.
 */

import { randomKey } from '../lib/random-key';
import { readStored, writeStored } from '../lib/storage';

const NAME = 'labrats.session';
export const HEADER = 'Labrats-Session-Secret';

function storedSecret(): string | undefined {
  const stored = readStored('localStorage', NAME);
  return stored !== null && /^[0-9a-f]{32}$/.test(stored) ? stored : undefined;
}

/** The headers of each request that needs the session. Another tab may have changed the secret since the last one. */
export function sessionHeaders(): Record<string, string> {
  const secret = storedSecret();
  return secret === undefined ? {} : { [HEADER]: secret };
}

/** The secret, which is created if there is none. Undefined if the browser does not store it. */
export function sessionSecret(): string | undefined {
  if (storedSecret() === undefined) writeStored('localStorage', NAME, randomKey());
  return storedSecret();
}

/** Store the secret with which the session began: another tab may have stored one of its own at the same moment. */
export function keepSecret(secret: string): void {
  if (storedSecret() !== secret) writeStored('localStorage', NAME, secret);
}

export function forgetSecret(): void {
  writeStored('localStorage', NAME, undefined);
}
