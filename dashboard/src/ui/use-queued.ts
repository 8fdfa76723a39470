import { useEffect, useEffectEvent, useState } from 'react';

/**
 * Send changes of one value one after the other. While one is sent, the latest further value waits for its end, so that
 * no click or key is lost. Returns the value to show, and a function that changes it.
 *
 * current: the value that is being sent, or else the one that the engine has, as far as it is known.
 */
export function useQueued<V>(current: V, isBusy: boolean, send: (value: V) => void): [V, (value: V) => void] {
  const [waiting, setWaiting] = useState<{ value: V; sent: V }>();
  const [next, setNext] = useState<{ value: V }>();
  if (waiting && !isBusy) {
    setWaiting(undefined);
    // Not compared with the engine's, of which an older answer may have arrived last.
    if (waiting.value !== waiting.sent) setNext(waiting);
  }
  const sendNext = useEffectEvent(send);
  useEffect(() => {
    if (next) sendNext(next.value);
  }, [next]);
  const change = (value: V) => {
    if (isBusy) setWaiting({ value, sent: current });
    else send(value);
  };
  return [waiting ? waiting.value : current, change];
}
