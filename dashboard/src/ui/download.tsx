import { useMutation } from '@tanstack/react-query';

import { fetchFile } from '../api/client';
import { Button, IconButton } from './button';
import { describe } from './states';
import { toast } from './toasts';

/** The time after which a saved file is dropped from the browser's memory. */
const SAVED_MS = 60_000;

/** Save a file. Its type keeps the browser from showing it, since a page in it would have this origin. */
function save(content: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(content.slice(0, content.size, 'application/octet-stream'));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), SAVED_MS);
}

/**
 * A button that saves a file of the engine. A link would not do: browsers follow it without the headers of the session.
 * Without a label it shows only an icon. file: the name under which the file is saved.
 */
export function Download({
  url,
  file,
  label,
  title,
  kind = 'plain',
}: {
  url: string;
  file: string;
  label?: string;
  title: string;
  kind?: 'plain' | 'quiet';
}) {
  const { mutate, isPending } = useMutation({
    mutationFn: async () => save(await fetchFile(url), file),
    onError: (error) => toast(describe(error).message, 'error'),
  });
  return label ? (
    <Button kind={kind} icon="download" title={title} isBusy={isPending} onClick={() => mutate()}>
      {label}
    </Button>
  ) : (
    <IconButton icon="download" label={title} disabled={isPending} onClick={() => mutate()} />
  );
}
