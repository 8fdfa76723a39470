/** Changes that two people make to the same resource, field by field. */

import { isSameJson } from './json';

export interface FieldChange<D> {
  field: keyof D & string;
  mine: unknown;
  theirs: unknown;
  /** Both have changed the field, in different ways. */
  isContested: boolean;
}

export interface Merge<D> {
  /** The draft with the others' changes, except where both changed a field: there it keeps its own value. */
  draft: D;
  /** All fields that the others have changed. */
  changes: FieldChange<D>[];
}

/** Bring the changes that others have made since `base` into a draft. */
export function merge<D extends object>(base: D, mine: D, theirs: D): Merge<D> {
  const draft = { ...mine };
  const changes: FieldChange<D>[] = [];
  for (const field of Object.keys(base) as (keyof D & string)[]) {
    if (isSameJson(base[field], theirs[field])) continue;
    const isContested = !isSameJson(base[field], mine[field]) && !isSameJson(mine[field], theirs[field]);
    if (!isContested) draft[field] = theirs[field];
    changes.push({ field, mine: mine[field], theirs: theirs[field], isContested });
  }
  return { draft, changes };
}

/** The fields of `after` that differ from `before`. */
export function changedFields(
  before: Record<string, unknown>,
  after: Record<string, unknown>,
): Record<string, unknown> {
  return Object.fromEntries(Object.entries(after).filter(([name, value]) => !isSameJson(before[name], value)));
}
