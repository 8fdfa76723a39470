import { useMutation } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';

import { replyToJob, type JobDetail } from '../../api/jobs';
import { randomKey } from '../../lib/random-key';
import { Button } from '../../ui/button';
import { Dialog } from '../../ui/dialog';
import { Field } from '../../ui/field';
import { describe } from '../../ui/states';
import { toast } from '../../ui/toasts';

/** Asks for a further message to the agent of an ended job, and opens the job that answers it. */
export function ReplyDialog({ job, onClose }: { job: JobDetail; onClose: () => void }) {
  const navigate = useNavigate();
  const [prompt, setPrompt] = useState('');
  const [key, setKey] = useState(() => randomKey());
  const send = useMutation({
    mutationFn: () => replyToJob(job.id, prompt, key),
    onSuccess: ({ jobId }) => {
      onClose();
      toast('The message is sent as a new job.');
      void navigate({ to: '/jobs/$id/activity', params: { id: jobId } });
    },
  });
  return (
    <Dialog title="Reply to the agent" size="medium" onClose={onClose}
      footer={<>
        <Button onClick={onClose}>Back</Button>
        <Button kind="primary" isBusy={send.isPending} disabled={prompt.trim() === ''} onClick={() => send.mutate()}>Send</Button>
      </>}>
      <Field label="Message" error={send.error ? describe(send.error).message : undefined}
        hint="A new job continues this one, in a copy of its session and workspace where they still exist.">
        {(ids) => <textarea {...ids} rows={6} value={prompt} onChange={(event) => { setPrompt(event.target.value); setKey(randomKey()); }} />}
      </Field>
    </Dialog>
  );
}
