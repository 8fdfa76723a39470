import { TextField, type TextName } from './fields';
import type { Form } from './use-form';

/** The network rule of agents, as text. none: the rule that applies without one. */
export function NetworkField<D>({
  form,
  name,
  label,
  none,
}: {
  form: Form<D>;
  name: TextName<D>;
  label: string;
  none: string;
}) {
  return (
    <TextField
      form={form}
      name={name}
      label={label}
      width="half"
      placeholder={`${none}; or open, public, none, npm, *.example.com`}
    />
  );
}
