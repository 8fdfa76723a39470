import { useMutation } from '@tanstack/react-query';
import type { ReactNode } from 'react';

import { Button } from './button';
import { Dialog } from './dialog';
import { Failure } from './states';

interface ConfirmProps<R> {
  title: string;
  action: string;
  children: ReactNode;
  run: () => Promise<R>;
  onDone: (result: R) => unknown;
  onClose: () => void;
}

/** Ask before something is removed. An error stays in the dialog. */
export function Confirm<R>({ title, action, children, run, onDone, onClose }: ConfirmProps<R>) {
  const doing = useMutation({ mutationFn: run, onSuccess: onDone });
  return (
    <Dialog
      title={title}
      onClose={onClose}
      footer={
        <>
          <Button onClick={onClose}>Back</Button>
          <Button kind="danger" isBusy={doing.isPending} onClick={() => doing.mutate()}>
            {action}
          </Button>
        </>
      }
    >
      <div style={{ display: 'grid', gap: 12, overflowWrap: 'anywhere' }}>
        <div>{children}</div>
        {doing.error && <Failure error={doing.error} />}
      </div>
    </Dialog>
  );
}
