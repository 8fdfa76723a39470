import { useState } from 'react';

import { Button, IconButton } from './button';
import { toast } from './toasts';

async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    toast('The browser does not allow copying here.', 'error');
    throw new Error('not copied');
  }
}

/**
 * A button that copies a text. Without a label it shows only an icon. text: or a function that makes a long one when it
 * is copied.
 */
export function Copy({ text, label, name = 'Copy' }: { text: string | (() => string); label?: string; name?: string }) {
  const [isCopied, setCopied] = useState(false);
  const run = () => {
    void copy(typeof text === 'string' ? text : text()).then(
      () => {
        setCopied(true);
        setTimeout(() => setCopied(false), 1500);
      },
      () => undefined,
    );
  };
  const icon = isCopied ? 'check' : 'copy';
  return label ? (
    <Button icon={icon} onClick={run}>
      {isCopied ? 'Copied' : label}
    </Button>
  ) : (
    <IconButton icon={icon} label={isCopied ? 'Copied' : name} onClick={run} />
  );
}
