/** A limit on the streams of one browser: the engine's HTTP/1.1 allows six connections, for all tabs together. */

export const SLOTS = 3;

/** The locks that all tabs share. Pages without TLS have none. */
export function browserLocks(): LockManager | undefined {
  return (navigator as Partial<Navigator>).locks;
}

/** Take a slot, if one is free. Returns a function that frees it. Without locks there is no limit. */
export async function takeSlot(locks = browserLocks()): Promise<(() => void) | undefined> {
  if (!locks) return () => undefined;
  for (let slot = 0; slot < SLOTS; slot++) {
    const free = await tryLock(locks, `labrats-stream-${slot}`);
    if (free) return free;
  }
  return undefined;
}

function tryLock(locks: LockManager, name: string): Promise<(() => void) | undefined> {
  return new Promise((resolve) => {
    void locks.request(name, { ifAvailable: true }, (lock) => {
      if (!lock) return resolve(undefined);
      return new Promise<void>((free) => resolve(() => free()));
    });
  });
}
