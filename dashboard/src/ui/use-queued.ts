import { useEffect, useEffectEvent, useState } from 'react';

/**
 * Send changes of one value one after the other. While one is sent, the latest further value waits for its end, so that
 * no click or key is lost. Returns the value to show, and a function that changes it.
 */
export function useQueued<V>(current: V, isBusy: boolean, send: (value: V) => void): [V, (value: V) => void] {
  const [waiting, setWaiting] = useState<{ value: V }>();
  const [next, setNext] = useState<{ value: V }>();
  if (waiting && !isBusy) {
    setWaiting(undefined);
    if (waiting.value !== current) setNext(waiting);
  }
  const sendNext = useEffectEvent(send);
  useEffect(() => {
    if (next) sendNext(next.value);
  }, [next]);
  return [waiting ? waiting.value : current, (value) => (isBusy ? setWaiting({ value }) : send(value))];
}
