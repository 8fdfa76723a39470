/** Files of local models: those in the settings, and those on the volume. */

import { LOCAL_PROVIDERS } from '../../api/config';
import type { ConfiguredFile, FileOperation, FoundFile } from '../../api/models';

export type FileState = 'present' | 'incomplete' | 'missing' | 'unknown' | 'none';

export interface FileRow {
  key: string;
  provider: string;
  /** Null for a file that no settings name. */
  model: string | null;
  /** Null for a model without a file. */
  filename: string | null;
  url: string | null;
  state: FileState;
  size: number | null;
  isConfigured: boolean;
  /** The operation on this file that has not ended. */
  operation: FileOperation | undefined;
}

/**
 * Join configured and found files. found: undefined before a scan; then the sizes are those of the engine's last scan.
 */
export function fileRows(
  configured: readonly ConfiguredFile[],
  found: readonly FoundFile[] | undefined,
  operations: readonly FileOperation[],
): FileRow[] {
  const operationOn = (provider: string, filename: string | null) =>
    operations.find(
      (each) =>
        each.provider === provider &&
        each.filename === filename &&
        (each.status === 'waiting' || each.status === 'active'),
    );
  const local = configured.filter((file) => file.filename !== null || LOCAL_PROVIDERS.includes(file.provider));
  const known = local.map((file): FileRow => {
    const onVolume = found?.find((each) => each.provider === file.provider && each.filename === file.filename);
    return {
      key: `${file.provider}/${file.model}/${file.filename ?? ''}`,
      provider: file.provider,
      model: file.model,
      filename: file.filename,
      url: file.url,
      state: stateOf(file, found && { isWhole: onVolume?.complete ?? false, size: onVolume?.size ?? null }),
      size: onVolume?.size ?? file.size,
      isConfigured: true,
      operation: operationOn(file.provider, file.filename),
    };
  });
  const others = (found ?? []).filter(
    (file) => !configured.some((each) => each.provider === file.provider && each.filename === file.filename),
  );
  return [
    ...known,
    ...others.map((file): FileRow => ({
      key: `${file.provider}//${file.filename}`,
      provider: file.provider,
      model: null,
      filename: file.filename,
      url: null,
      state: file.complete ? 'present' : 'incomplete',
      size: file.size,
      isConfigured: false,
      operation: operationOn(file.provider, file.filename),
    })),
  ];
}

function stateOf(file: ConfiguredFile, scanned: { isWhole: boolean; size: number | null } | undefined): FileState {
  if (file.filename === null) return 'none';
  const { isWhole, size } = scanned ?? { isWhole: file.downloaded, size: file.size };
  if (isWhole === null) return 'unknown';
  return isWhole ? 'present' : size === null ? 'missing' : 'incomplete';
}
