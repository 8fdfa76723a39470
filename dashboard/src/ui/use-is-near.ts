import { useEffect, useState, type RefObject } from 'react';

/** The distance from the window within which parts of a page are drawn. */
const NEAR = '600px 0px';

/** Whether an element is in the window or near it. once: from the first time on. */
export function useIsNear(ref: RefObject<HTMLElement | null>, once = false): boolean {
  const [isNear, setNear] = useState(false);
  useEffect(() => {
    const element = ref.current;
    if (!element) return;
    const observer = new IntersectionObserver(
      (entries) => {
        const isIntersecting = entries.at(-1)?.isIntersecting ?? false;
        setNear((before) => (once && before) || isIntersecting);
      },
      { rootMargin: NEAR },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, [ref, once]);
  return isNear;
}
