import { useNavigate } from '@tanstack/react-router';

import { replyToJob, type JobDetail } from '../../api/jobs';
import { Button } from '../../ui/button';
import { Dialog } from '../../ui/dialog';
import { FormBody, TextArea } from '../../ui/fields';
import { toast } from '../../ui/toasts';
import { Texts, useNewForm } from '../../ui/use-form';

const FORM = 'reply-form';
const EMPTY = { prompt: '' };

function messageBody(draft: typeof EMPTY) {
  const texts = new Texts(draft);
  return { body: { prompt: texts.required('prompt') }, problems: texts.problems };
}

/** Asks for a further message to the agent of an ended job, and opens the job that answers it. */
export function ReplyDialog({ job, onClose }: { job: JobDetail; onClose: () => void }) {
  const navigate = useNavigate();
  const form = useNewForm<typeof EMPTY, string>({
    initial: EMPTY,
    storedAs: `reply.${job.id}`,
    bodyOf: messageBody,
    create: async (body, key) => (await replyToJob(job.id, String(body['prompt']), key)).jobId,
    onDone: (jobId) => {
      onClose();
      toast('The message is sent as a new job.');
      void navigate({ to: '/jobs/$id/activity', params: { id: jobId } });
    },
  });
  return (
    <Dialog
      title="Reply to the agent"
      size="medium"
      onClose={onClose}
      footer={
        <>
          <Button
            onClick={() => {
              form.reset();
              onClose();
            }}
          >
            Cancel
          </Button>
          <Button
            type="submit"
            form={FORM}
            kind="primary"
            isBusy={form.isBusy}
            disabled={form.draft.prompt.trim() === ''}
          >
            Send
          </Button>
        </>
      }
    >
      <FormBody form={form} id={FORM}>
        <TextArea
          form={form}
          name="prompt"
          label="Message"
          width="whole"
          rows={6}
          hint="A new job continues this one, in a copy of its session and workspace where they still exist."
        />
      </FormBody>
    </Dialog>
  );
}
