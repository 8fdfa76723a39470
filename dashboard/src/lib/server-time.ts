/** The engine's clock. Ages are counted by it, since the clock of the browser may be wrong. */

/** Differences below this come from the way of an answer and the whole seconds of its header. */
const TOLERANCE_MS = 3_000;

let ahead = 0;

/** Note the time at which the engine has answered. header: `Date` of its answer. */
export function noteServerTime(header: string | null, now = Date.now()): void {
  const time = header === null ? NaN : Date.parse(header);
  if (Number.isNaN(time)) return;
  const found = time - now;
  if (Math.abs(found) < TOLERANCE_MS) ahead = 0;
  else if (Math.abs(found - ahead) >= TOLERANCE_MS) ahead = found;
}

/** Return the time by the engine's clock, as far as it is known. */
export function serverNow(now = Date.now()): number {
  return now + ahead;
}
