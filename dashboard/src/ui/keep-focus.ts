/** The focus of a control that leaves the page. */

import { useLayoutEffect, useRef } from 'react';

const CONTROLS = ':is(a[href], button, input, select, textarea, summary):not(:disabled)';

/**
 * Return a ref for a control. If the control has the focus when it leaves the page, the focus moves to a control near
 * it: otherwise the next key would act on nothing.
 */
export function useKeptFocus<E extends HTMLElement>() {
  const ref = useRef<E>(null);
  // A layout effect: its cleanup runs while the control is still in the document.
  useLayoutEffect(() => {
    const control = ref.current;
    return () => {
      if (control !== null && control === document.activeElement) keepFocusNear(control);
    };
  }, []);
  return ref;
}

/** Once the page is drawn, focus what stands nearest to an element that has left it, unless something has the focus. */
function keepFocusNear(element: HTMLElement): void {
  const parents: HTMLElement[] = [];
  for (let parent = element.parentElement; parent; parent = parent.parentElement) parents.push(parent);
  queueMicrotask(() => {
    if (document.activeElement !== document.body) return;
    const near = parents.find(
      (parent) => parent.isConnected && (parent.id === 'main' || parent.querySelector(CONTROLS)),
    );
    (near?.id === 'main' ? near : near?.querySelector<HTMLElement>(CONTROLS))?.focus({ preventScroll: true });
  });
}
