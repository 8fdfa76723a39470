/** Changes of single fields that take effect at once. */

import { isSameJson } from '../lib/json';
import { ApiError } from './client';

/**
 * Change one field of a shown resource. Throws an Error if others have changed the field since. Their changes of other
 * fields stay.
 */
export async function changeField<V extends { resourceVersion: string }, F extends keyof V & string>(
  shown: V,
  field: F,
  value: V[F],
  change: (changes: Record<F, V[F]> & { resourceVersion: string }) => Promise<V>,
  read: () => Promise<V>,
): Promise<V> {
  const send = (version: string) =>
    change({ [field]: value, resourceVersion: version } as Record<F, V[F]> & { resourceVersion: string });
  try {
    return await send(shown.resourceVersion);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 409) throw error;
    const current = await read();
    if (current.resourceVersion === shown.resourceVersion) throw error;
    if (!isSameJson(current[field], shown[field])) {
      throw new Error(
        `Changed meanwhile: ${field} is ${JSON.stringify(current[field])} now. Your change is not saved.`,
        { cause: error },
      );
    }
    return send(current.resourceVersion);
  }
}
