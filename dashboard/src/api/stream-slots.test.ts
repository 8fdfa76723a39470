import { expect, test } from 'vitest';

import { SLOTS, takeSlot } from './stream-slots';

function locksOfBrowser(): LockManager {
  const held = new Set<string>();
  const request = async (name: string, _: LockOptions, run: (lock: unknown) => Promise<void> | undefined) => {
    if (held.has(name)) return run(null);
    held.add(name);
    await run({ name });
    held.delete(name);
  };
  return { request } as unknown as LockManager;
}

test('a browser has a few slots, and a freed one can be taken again', async () => {
  const locks = locksOfBrowser();
  const slots = [];
  for (let number = 0; number < SLOTS; number++) slots.push(await takeSlot(locks));
  expect(slots.every((free) => free !== undefined)).toBe(true);
  expect(await takeSlot(locks)).toBeUndefined();
  slots[1]?.();
  await Promise.resolve();
  await Promise.resolve();
  expect(await takeSlot(locks)).toBeDefined();
});
