import { useQuery } from '@tanstack/react-query';
import { useId, type ReactNode } from 'react';

import { secretsQuery } from '../api/secrets';
import { NEW_VARIABLE, type VariableDraft } from '../lib/variables';
import { useMayChange } from './access';
import { IconButton } from './button';
import { AddRow } from './fields';
import type { FormWith } from './use-form';
import styles from './variable-fields.module.css';

export const VARIABLES_LABEL = 'Environment variables';

interface VariablesDraft {
  env: VariableDraft[];
}

/** The environment variables of agents, one a row: each has a text, or a value of a Secret. hint: their place. */
export function VariableFields({ form, hint }: { form: FormWith<VariablesDraft>; hint: string }) {
  const title = useId();
  const { env } = form.draft;
  const change = (index: number, part: Partial<VariableDraft>) =>
    form.set(
      'env',
      env.map((each, at) => (at === index ? { ...each, ...part } : each)),
    );
  return (
    <div role="group" aria-labelledby={title} className={styles.variables}>
      <p id={title} className={styles.title}>
        {VARIABLES_LABEL}
      </p>
      {env.map((variable, index) => (
        <Variable
          key={index}
          variable={variable}
          position={index + 1}
          onChange={(part) => change(index, part)}
          onRemove={() =>
            form.set(
              'env',
              env.filter((_, at) => at !== index),
            )
          }
        />
      ))}
      <AddRow form={form} name="env" hint={hint} onAdd={() => form.set('env', [...env, NEW_VARIABLE])}>
        Add variable
      </AddRow>
    </div>
  );
}

function Variable({
  variable: { name, isSecret, value, secret, key },
  position,
  onChange,
  onRemove,
}: {
  variable: VariableDraft;
  position: number;
  onChange: (part: Partial<VariableDraft>) => void;
  onRemove: () => void;
}) {
  const secrets = useQuery({ ...secretsQuery, enabled: useMayChange() && isSecret }).data?.secrets ?? [];
  const keys = secrets.find((each) => each.name === secret)?.keys ?? [];
  return (
    <div className={styles.variable}>
      <Input
        label={`Name of variable ${position}`}
        value={name}
        placeholder="CI"
        set={(text) => onChange({ name: text })}
      />
      <select
        aria-label={`Kind of variable ${position}`}
        value={isSecret ? 'secret' : 'text'}
        onChange={(event) => onChange({ isSecret: event.target.value === 'secret' })}
      >
        <option value="text">Text</option>
        <option value="secret">Secret</option>
      </select>
      {isSecret ? (
        <>
          <Input
            label={`Secret of variable ${position}`}
            value={secret}
            placeholder="Secret"
            suggestions={secrets.map((each) => each.name)}
            set={(text) => onChange({ secret: text })}
          />
          <Input
            label={`Key of variable ${position}`}
            value={key}
            placeholder="Key"
            suggestions={keys}
            set={(text) => onChange({ key: text })}
          />
        </>
      ) : (
        <textarea
          aria-label={`Text of variable ${position}`}
          rows={value.split('\n').length}
          value={value}
          placeholder="1"
          spellCheck={false}
          onChange={(event) => onChange({ value: event.target.value })}
        />
      )}
      <IconButton isChanging icon="close" label={`Remove variable ${position}`} onClick={onRemove} />
    </div>
  );
}

function Input({
  label,
  value,
  placeholder,
  suggestions = [],
  set,
}: {
  label: string;
  value: string;
  placeholder: string;
  suggestions?: readonly string[];
  set: (text: string) => void;
}): ReactNode {
  const list = useId();
  return (
    <>
      <input
        aria-label={label}
        value={value}
        placeholder={placeholder}
        spellCheck={false}
        autoComplete="off"
        list={suggestions.length > 0 ? list : undefined}
        onChange={(event) => set(event.target.value)}
      />
      {suggestions.length > 0 && (
        <datalist id={list}>
          {suggestions.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      )}
    </>
  );
}
