/** What the signed-in user may do. Viewers do not see what would change something: the engine refuses it. */

import { createContext, use, type ReactNode } from 'react';

const Access = createContext(true);

/** mayChange: false for a user who only reads. */
export function AccessOf({ mayChange, children }: { mayChange: boolean; children: ReactNode }) {
  return <Access value={mayChange}>{children}</Access>;
}

export function useMayChange(): boolean {
  return use(Access);
}

/** Controls that change something. */
export function Changing({ children }: { children: ReactNode }) {
  return use(Access) && children;
}
