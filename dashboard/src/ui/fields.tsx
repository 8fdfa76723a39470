/** Fields of a form, bound to its draft by name. */

import { useEffect, useId, useRef, type ReactNode, type SyntheticEvent } from 'react';

import { visible } from '../lib/ansi';
import { isSameJson } from '../lib/json';
import { Changing, useMayChange } from './access';
import { Button } from './button';
import { Field } from './field';
import styles from './fields.module.css';
import { Icon } from './icons';
import { Failure } from './states';
import type { EditorState, Form, FormState } from './use-form';

type Names<D, T> = { [K in keyof D]: D[K] extends T ? K : never }[keyof D] & string;

export type TextName<D> = Names<D, string>;

interface FieldProps<D, T> {
  form: Form<D>;
  name: Names<D, T>;
  label: string;
  hint?: ReactNode;
  /** Columns that the field takes. */
  width?: 'one' | 'half' | 'whole';
}

function placed(width: 'one' | 'half' | 'whole' | undefined, content: ReactNode) {
  return <div className={width && styles[width]}>{content}</div>;
}

interface TextFieldProps<D> extends FieldProps<D, string> {
  placeholder?: string | undefined;
  isNumeric?: boolean;
  isReadOnly?: boolean;
  /** Secrets are not shown, and browsers do not store them. */
  isSecret?: boolean;
  suggestions?: readonly string[];
}

export function TextField<D>({
  form,
  name,
  label,
  hint,
  width,
  placeholder,
  isNumeric = false,
  isReadOnly = false,
  isSecret = false,
  suggestions,
}: TextFieldProps<D>) {
  const list = useId();
  return placed(
    width,
    <Field label={label} hint={hint} error={form.problems[name]}>
      {(ids) => (
        <>
          <input
            {...ids}
            name={name}
            type={isSecret ? 'password' : 'text'}
            inputMode={isNumeric ? 'decimal' : undefined}
            placeholder={placeholder}
            autoComplete={isSecret ? 'new-password' : 'off'}
            spellCheck={false}
            readOnly={isReadOnly}
            list={suggestions && list}
            value={form.draft[name] as string}
            onChange={(event) => form.set(name, event.target.value as D[typeof name])}
          />
          {suggestions && (
            <datalist id={list}>
              {[...new Set(suggestions)].map((each) => (
                <option key={each} value={each} />
              ))}
            </datalist>
          )}
        </>
      )}
    </Field>,
  );
}

export function TextArea<D>({
  form,
  name,
  label,
  hint,
  width = 'whole',
  placeholder,
  rows = 4,
  isCode = false,
  hasFocus = false,
}: FieldProps<D, string> & {
  placeholder?: string;
  rows?: number;
  isCode?: boolean;
  /** It has the focus once it is drawn. */
  hasFocus?: boolean;
}) {
  return placed(
    width,
    <Field label={label} hint={hint} error={form.problems[name]}>
      {(ids) => (
        <textarea
          {...ids}
          name={name}
          rows={rows}
          autoFocus={hasFocus}
          placeholder={placeholder}
          spellCheck={!isCode}
          className={isCode ? styles.code : undefined}
          value={form.draft[name] as string}
          onChange={(event) => form.set(name, event.target.value as D[typeof name])}
        />
      )}
    </Field>,
  );
}

/** options: values, or values with their labels. none: the label of the empty value. */
export function SelectField<D>({
  form,
  name,
  label,
  hint,
  width,
  options,
  none,
}: FieldProps<D, string> & { options: readonly (string | readonly [string, string])[]; none?: string }) {
  const pairs = options.map((option) => (typeof option === 'string' ? ([option, option] as const) : option));
  const value = form.draft[name] as string;
  return placed(
    width,
    <Field label={label} hint={hint} error={form.problems[name]}>
      {(ids) => (
        <select
          {...ids}
          name={name}
          value={value}
          onChange={(event) => form.set(name, event.target.value as D[typeof name])}
        >
          {none !== undefined && <option value="">{none}</option>}
          {value !== '' && !pairs.some(([each]) => each === value) && <option value={value}>{value}</option>}
          {pairs.map(([each, text]) => (
            <option key={each} value={each}>
              {text}
            </option>
          ))}
        </select>
      )}
    </Field>,
  );
}

export function CheckField<D>({ form, name, label, hint, width = 'whole' }: FieldProps<D, boolean>) {
  const id = useId();
  const note = form.problems[name] ?? hint;
  return placed(
    width,
    <div className={styles.check}>
      <label>
        <input
          type="checkbox"
          name={name}
          checked={form.draft[name] as boolean}
          aria-describedby={note ? id : undefined}
          onChange={(event) => form.set(name, event.target.checked as D[typeof name])}
        />{' '}
        {label}
      </label>
      {note && (
        <p id={id} className={form.problems[name] ? styles.error : styles.hint}>
          {note}
        </p>
      )}
    </div>,
  );
}

/** A button that adds a row of a list, with the problem of the list, or a hint. */
export function AddRow<D>({
  form,
  name,
  hint,
  children,
  onAdd,
}: {
  form: Form<D>;
  name: keyof D & string;
  hint: string;
  children: string;
  onAdd: () => void;
}) {
  const id = useId();
  const problem = form.problems[name];
  return (
    <Changing>
      <div className={styles.add}>
        <Button icon="plus" name={name} aria-describedby={id} onClick={onAdd}>
          {children}
        </Button>
        <p id={id} className={problem ? styles.error : styles.hint}>
          {problem ?? hint}
        </p>
      </div>
    </Changing>
  );
}

/** A titled group of fields in columns; on phones there are at most two. */
export function FieldGroup({
  title,
  note,
  columns = 2,
  children,
}: {
  title?: string;
  note?: ReactNode;
  columns?: 2 | 3 | 4;
  children: ReactNode;
}) {
  return (
    <fieldset className={styles.group} data-columns={columns}>
      {title && <legend>{title}</legend>}
      {note && <p className={styles.note}>{note}</p>}
      <div>{children}</div>
    </fieldset>
  );
}

interface FormBodyProps {
  form: Pick<FormState<unknown>, 'submit' | 'error' | 'others'>;
  children: ReactNode;
  footer?: ReactNode;
  id?: string;
  /** Sending the form changes nothing, so viewers may do it too. */
  isReading?: boolean;
}

/** A form with its general problems. It is also sent with Ctrl Enter. Viewers see its values. */
export function FormBody({ form, children, footer, id, isReading = false }: FormBodyProps) {
  const mayChange = useMayChange();
  const trouble = useRef<HTMLDivElement>(null);
  const hasTrouble = form.error !== undefined || form.others.length > 0;
  useEffect(() => {
    if (hasTrouble) trouble.current?.scrollIntoView({ block: 'nearest' });
  }, [hasTrouble, form.error]);
  return (
    <form
      id={id}
      noValidate
      className={styles.form}
      onSubmit={(event: SyntheticEvent) => form.submit(event)}
      onKeyDown={(event) => {
        if (event.key === 'Enter' && (event.metaKey || event.ctrlKey)) form.submit();
      }}
    >
      {mayChange || isReading ? (
        children
      ) : (
        <fieldset disabled className={styles.values}>
          {children}
        </fieldset>
      )}
      {hasTrouble && (
        <div ref={trouble} className={styles.trouble}>
          {form.error !== undefined && <Failure error={form.error} />}
          {form.others.length > 0 && (
            <ul role="alert" className={styles.problems}>
              {form.others.map((problem) => (
                <li key={problem}>{problem}</li>
              ))}
            </ul>
          )}
        </div>
      )}
      {footer}
    </form>
  );
}

/** The bar below an editor: save, discard, and whether something is unsaved. */
export function SaveBar<D>({ form, label = 'Save' }: { form: EditorState<D>; label?: string }) {
  return (
    <Changing>
      <div className={styles.bar}>
        <Button type="submit" kind="primary" isBusy={form.isBusy} disabled={!form.isDirty}>
          {label}
        </Button>
        {form.isDirty && (
          <Button kind="quiet" onClick={form.reset}>
            Discard changes
          </Button>
        )}
        <span role="status">{form.isDirty ? 'Unsaved changes stay in this tab.' : ''}</span>
      </div>
    </Changing>
  );
}

/** What others have changed since the draft was begun, field by field. labels: of the fields. */
export function ChangedMeanwhile<D>({
  form,
  labels,
}: {
  form: EditorState<D>;
  labels: Readonly<Partial<Record<keyof D, string>>>;
}) {
  if (form.changes.length === 0) return null;
  const contested = form.changes.filter((change) => change.isContested);
  return (
    <section role="alert" aria-label="Changed meanwhile" className={styles.meanwhile}>
      <Icon name="warning" />
      <div>
        <h2>Changed meanwhile</h2>
        <p>
          Someone saved other values while you were editing; nothing of yours is saved yet.{' '}
          {contested.length > 0
            ? 'Choose a value for each field that both of you changed, then save again.'
            : 'Their values are in the form below. Save again to add yours.'}
        </p>
        <ul>
          {form.changes.map(({ field, mine, theirs, isContested }) => {
            const isTheirs = isSameJson(form.draft[field], theirs);
            return (
              <li key={field}>
                <h3>{labels[field] ?? field}</h3>
                {isContested ? (
                  <div role="group" aria-label={labels[field] ?? field} className={styles.choices}>
                    <button
                      type="button"
                      aria-pressed={!isTheirs}
                      onClick={() => form.set(field, mine as D[typeof field])}
                    >
                      <span>Yours</span>
                      <Value value={mine} />
                    </button>
                    <button
                      type="button"
                      aria-pressed={isTheirs}
                      onClick={() => form.set(field, theirs as D[typeof field])}
                    >
                      <span>Theirs</span>
                      <Value value={theirs} />
                    </button>
                  </div>
                ) : (
                  <p className={styles.taken}>
                    Now <Value value={theirs} />
                  </p>
                )}
              </li>
            );
          })}
        </ul>
      </div>
    </section>
  );
}

const SHOWN = 300;

function Value({ value }: { value: unknown }) {
  const text =
    typeof value === 'boolean' ? (value ? 'yes' : 'no') : typeof value === 'string' ? value : JSON.stringify(value);
  return <code>{text === '' ? 'empty' : visible(text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text)}</code>;
}
