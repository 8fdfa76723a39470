import { useQueryClient } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';

import { EFFORTS, PROVIDERS } from '../../api/config';
import { extractPdf, type Upload } from '../../api/uploads';
import { Button } from '../../ui/button';
import { Dialog } from '../../ui/dialog';
import { FieldGroup, FormBody, SelectField, TextArea, TextField } from '../../ui/fields';
import { toast } from '../../ui/toasts';
import { Texts, useNewForm, type Body } from '../../ui/use-form';

const FORM = 'extract-form';
const EMPTY = { prompt: '', provider: '', model: '', effort: '' };

function extractionBody(draft: typeof EMPTY) {
  const texts = new Texts(draft);
  const fields = (['prompt', 'provider', 'model', 'effort'] as const).map((name) => [name, texts.text(name)] as const);
  return { body: Object.fromEntries(fields.filter(([, value]) => value !== null)) as Body, problems: texts.problems };
}

/** Start a job that reads the PDF section by section. */
export function ExtractDialog({ upload, onClose }: { upload: Upload; onClose: () => void }) {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const form = useNewForm<typeof EMPTY, string>({
    initial: EMPTY,
    storedAs: `extraction.${upload.id}`,
    bodyOf: extractionBody,
    create: (body, key) => extractPdf(upload.id, body, key),
    onDone: (jobId) => {
      void queries.invalidateQueries({ queryKey: ['uploads'] });
      toast('The extraction is queued.');
      void navigate({ to: '/jobs/$id/activity', params: { id: jobId } });
    },
  });
  return (
    <Dialog
      title={`Extract ${upload.name}`}
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
          <Button type="submit" form={FORM} kind="primary" isBusy={form.isBusy}>
            Start extraction
          </Button>
        </>
      }
    >
      <FormBody form={form} id={FORM}>
        <FieldGroup columns={3}>
          <TextArea
            form={form}
            name="prompt"
            label="Prompt for each section"
            rows={4}
            placeholder="Without a prompt, the facts of each section are listed."
          />
          <SelectField form={form} name="provider" label="Provider" options={PROVIDERS} none="Default" />
          <TextField form={form} name="model" label="Model" placeholder="Default" />
          <SelectField form={form} name="effort" label="Effort" options={EFFORTS} none="Default" />
        </FieldGroup>
      </FormBody>
    </Dialog>
  );
}
