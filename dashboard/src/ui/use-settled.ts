import { useEffect, useState } from 'react';

/** The pause in typing after which a search begins. */
export const TYPING_MS = 200;

/** Return the value once it has not changed for a moment; until then, the one before. */
export function useSettled(value: string, afterMs = TYPING_MS): string {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), afterMs);
    return () => clearTimeout(timer);
  }, [value, afterMs]);
  return settled;
}
