/** Forms: drafts, problems at their fields, and changes that others make meanwhile. */

import { useMutation } from '@tanstack/react-query';
import { useEffect, useState, type SyntheticEvent } from 'react';

import { ApiError, isFinal } from '../api/client';
import { count, span } from '../lib/format';
import { isSameJson, parseJson } from '../lib/json';
import { changedFields, merge, type FieldChange } from '../lib/merge';
import { randomKey } from '../lib/random-key';
import { readStoredJson, removeStored, writeStored } from '../lib/storage';
import { MINUTE_MS } from '../lib/times';
import { variablesOf, type VariableDraft, type Variables } from '../lib/variables';

export type Body = Record<string, unknown>;
export type Problems<D> = Partial<Record<keyof D, string | undefined>>;

/** A draft as the fields of a form see it. */
export interface Form<D> {
  draft: D;
  problems: Problems<D>;
  set: <F extends keyof D>(field: F, value: D[F]) => void;
}

/** A form that has the fields of D, and maybe others. */
export type FormWith<D> = { [Part in keyof Form<D>]: Form<D>[Part] };

export interface FormState<D> extends Form<D> {
  /** Problems that belong to no field of the form. */
  others: string[];
  error: unknown;
  isBusy: boolean;
  submit: (event?: SyntheticEvent) => void;
  /** Drop the draft. */
  reset: () => void;
}

export interface EditorState<D> extends FormState<D> {
  isDirty: boolean;
  /** The fields that others have changed since the draft was begun, until the draft is saved. */
  changes: FieldChange<D>[];
}

interface FormOptions<D> {
  /** The body that the API takes for a draft, and the problems of the draft. */
  bodyOf: (draft: D) => { body: Body; problems: Problems<D> };
  /** Fields of the form by the field of the API, where the names differ. */
  names?: Readonly<Record<string, keyof D>>;
}

interface NewFormOptions<D, R> extends FormOptions<D> {
  initial: D;
  /**
   * Name under which this tab keeps the draft until it is sent or dropped. Without one, it lasts as long as the form.
   */
  storedAs?: string;
  /** Create the resource. key: repeated requests with the same key create one. */
  create: (body: Body, key: string) => Promise<R>;
  onDone: (created: R) => void;
}

/** A body and its idempotency key: the engine creates at most one resource with a key. */
export interface KeyedBody {
  body: Body;
  key: string;
}

/**
 * The key of the next request of a form. A request without an answer is repeated with its key and body until the draft
 * changes.
 */
export class Repeats {
  private key = randomKey();
  private unanswered: KeyedBody | undefined;

  /** The request to send for a draft with this body. */
  next(body: Body): KeyedBody {
    return this.unanswered ?? { body, key: this.key };
  }

  /**
   * Note that a request has failed. After a temporary error the engine may have created the resource, and its key finds
   * it.
   */
  failed(sent: KeyedBody, error: unknown): void {
    if (sent.key !== this.key) return; // the draft has changed while the request was under way
    if (isFinal(error)) this.renew();
    else this.unanswered = sent;
  }

  /** Use another key, since the draft has changed. */
  renew(): void {
    this.key = randomKey();
    this.unanswered = undefined;
  }
}

/** A form that creates a resource. */
export function useNewForm<D extends object, R>({
  initial,
  storedAs,
  create,
  onDone,
  ...options
}: NewFormOptions<D, R>): FormState<D> {
  const [draft, setDraft] = useState(() => (storedAs && storedNew(storedAs, initial)) || initial);
  const [repeats] = useState(() => new Repeats());
  const problems = useProblems(draft, options);
  useEffect(() => {
    if (storedAs && draft !== initial) store(storedAs, draft);
  }, [storedAs, draft, initial]);
  const sending = useMutation({
    mutationFn: ({ body, key }: KeyedBody) => create(body, key),
    onSuccess: (created) => {
      if (storedAs) store(storedAs, undefined);
      onDone(created);
    },
    onError: (error, sent) => {
      problems.show(error);
      repeats.failed(sent, error);
    },
  });
  const set: Form<D>['set'] = (field, value) => {
    setDraft((before) => ({ ...before, [field]: value }));
    problems.clear(field);
    repeats.renew();
  };
  const submit = (event?: SyntheticEvent) => {
    event?.preventDefault();
    if (sending.isPending) return;
    const body = problems.check();
    if (body) sending.mutate(repeats.next(body));
  };
  const reset = () => {
    setDraft(initial);
    repeats.renew();
    if (storedAs) store(storedAs, undefined);
    problems.clearAll();
  };
  return {
    draft,
    set,
    submit,
    problems: problems.fields,
    others: problems.others,
    error: problems.general,
    isBusy: sending.isPending,
    reset,
  };
}

interface Versioned {
  resourceVersion: string | null;
}

interface EditorOptions<V extends Versioned, D> extends FormOptions<D> {
  /** Name under which this tab keeps an unsaved draft. */
  storedAs: string;
  current: V;
  draftOf: (view: V) => D;
  /** Send the changed fields with the version. base: the version that they change. */
  change: (changes: Body, base: V) => Promise<V>;
  read: () => Promise<V>;
  onSaved: (saved: V) => void;
}

/** A form that changes a resource. It sends only changed fields, and merges what others have changed meanwhile. */
export function useEditor<V extends Versioned, D extends object>(options: EditorOptions<V, D>): EditorState<D> {
  const { storedAs, current, draftOf, bodyOf, change, read, onSaved } = options;
  const [{ base, draft, changes }, setState] = useState<Editing<V, D>>(
    () =>
      storedDraft(storedAs, current.resourceVersion, draftOf(current)) ?? {
        base: current,
        draft: draftOf(current),
        changes: [],
      },
  );
  const problems = useProblems(draft, options);
  const isDirty = !isSameJson(draft, draftOf(base));
  if (!isDirty && base.resourceVersion !== current.resourceVersion)
    setState({ base: current, draft: draftOf(current), changes: [] });
  useEffect(
    () => store(storedAs, isDirty ? { base, draft, changes } : undefined),
    [storedAs, isDirty, base, draft, changes],
  );

  const saving = useMutation({
    mutationFn: async (body: Body) => {
      const changed = changedFields(bodyOf(draftOf(base)).body, body);
      return send(changed, base);
    },
    onSuccess: (result) => {
      if ('changes' in result) {
        setState(result);
        return;
      }
      setState({ base: result, draft: draftOf(result), changes: [] });
      store(storedAs, undefined); // a dialog that closes now runs no further effect
      onSaved(result);
    },
    onError: problems.show,
  });
  /** Send the changes. If others have changed the resource, return their version merged with the draft. */
  const send = async (changed: Body, onto: V): Promise<V | Editing<V, D>> => {
    try {
      return await change({ ...changed, resourceVersion: onto.resourceVersion }, onto);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 409) throw error;
      const theirs = await read();
      if (theirs.resourceVersion === onto.resourceVersion) throw error;
      const merged = merge(draftOf(base), draft, draftOf(theirs));
      if (merged.changes.length === 0) return send(changed, theirs); // other fields, or its status
      return { base: theirs, ...merged };
    }
  };
  return {
    draft,
    isDirty,
    changes,
    problems: problems.fields,
    others: problems.others,
    error: problems.general,
    isBusy: saving.isPending,
    set: (field, value) => {
      setState((before) => ({ ...before, draft: { ...before.draft, [field]: value } }));
      problems.clear(field);
    },
    submit: (event) => {
      event?.preventDefault();
      if (saving.isPending) return;
      const body = problems.check();
      if (body) saving.mutate(body);
    },
    reset: () => {
      setState({ base: current, draft: draftOf(current), changes: [] });
      store(storedAs, undefined);
      problems.clearAll();
    },
  };
}

interface Editing<V, D> {
  base: V;
  draft: D;
  changes: FieldChange<D>[];
}

function storageKey(name: string): string {
  return `labrats.edit.${name}`;
}

function store(name: string, value: unknown): void {
  writeStored('sessionStorage', storageKey(name), value === undefined ? undefined : JSON.stringify(value));
}

/** Forget the drafts whose names begin with `start`, such as those of triggers that have other positions now. */
export function forgetDrafts(start: string): void {
  removeStored('sessionStorage', storageKey(start));
}

/** The stored draft of a new resource, unless an update of the dashboard has changed its fields. */
function storedNew<D extends object>(name: string, initial: D): D | undefined {
  const stored = readStoredJson('sessionStorage', storageKey(name));
  return hasFieldsOf(initial, stored) ? stored : undefined;
}

function hasFieldsOf<D extends object>(initial: D, stored: unknown): stored is D {
  return (
    typeof stored === 'object' && stored !== null && isSameJson(Object.keys(stored).sort(), Object.keys(initial).sort())
  );
}

/** The stored draft, unless an update of the dashboard has changed its fields. */
function storedDraft<V extends Versioned, D extends object>(
  name: string,
  version: string | null,
  initial: D,
): Editing<V, D> | undefined {
  const stored = readStoredJson('sessionStorage', storageKey(name)) as Partial<Editing<V, D>> | null | undefined;
  if (!stored?.base || version === null || !hasFieldsOf(initial, stored.draft)) return undefined;
  return { base: stored.base, draft: stored.draft, changes: Array.isArray(stored.changes) ? stored.changes : [] };
}

function useProblems<D extends object>(draft: D, { bodyOf, names }: FormOptions<D>) {
  const [fields, setFields] = useState<Problems<D>>({});
  const [others, setOthers] = useState<string[]>([]);
  const [general, setGeneral] = useState<unknown>();
  const clearAll = () => {
    setFields({});
    setOthers([]);
    setGeneral(undefined);
  };
  return {
    fields,
    others,
    general,
    clearAll,
    clear: (field: keyof D) => setFields((before) => ({ ...before, [field]: undefined })),
    /** The body of the draft, or undefined if the draft has problems. */
    check: (): Body | undefined => {
      const { body, problems } = bodyOf(draft);
      clearAll();
      setFields(problems);
      const wrong = Object.keys(problems).filter((name) => problems[name as keyof D]);
      if (wrong.length === 0) return body;
      focusFirst(wrong);
      return undefined;
    },
    show: (error: unknown) => {
      if ('name' in draft && isNameTaken(error)) {
        setFields({ name: 'is taken: choose another name' } as Problems<D>);
        focusFirst(['name']);
        return;
      }
      if (!(error instanceof ApiError) || error.details.length === 0) {
        setGeneral(error);
        return;
      }
      const found = problemsByField(error.details, draft, names);
      setFields(found.fields);
      setOthers(found.others);
      focusFirst(Object.keys(found.fields));
    },
  };
}

/** Focus the field that comes first on the page. */
function focusFirst(names: readonly string[]): void {
  const fields = [...document.querySelectorAll<HTMLElement>('[name]')];
  fields.find((field) => names.includes(field.getAttribute('name') ?? ''))?.focus();
}

/** Return whether the API refused a new resource because another one has its name. */
export function isNameTaken(error: unknown): boolean {
  if (!(error instanceof ApiError) || error.status !== 409) return false;
  if (error.details.length > 0) return error.details.some(({ field }) => field === 'name');
  return /exists already|already exists|already a key named/.test(error.message);
}

/** The details of an answer by the field of the form. A detail of a nested field names the rest of its path. */
export function problemsByField<D extends object>(
  details: readonly { field: string; message: string }[],
  draft: D,
  names: Readonly<Record<string, keyof D>> = {},
): { fields: Problems<D>; others: string[] } {
  const fields: Problems<D> = {};
  const others: string[] = [];
  for (const { field, message } of details) {
    const own = fieldOf(field, draft, names);
    if (!own) {
      others.push(`${field}: ${message}`);
      continue;
    }
    const text = own.rest ? `${own.rest}: ${message}` : message;
    fields[own.name] = fields[own.name] ? `${fields[own.name]}; ${text}` : text;
  }
  return { fields, others };
}

function fieldOf<D extends object>(
  path: string,
  draft: D,
  names: Readonly<Record<string, keyof D>>,
): { name: keyof D; rest: string } | undefined {
  for (let end = path.length; end > 0; end = Math.max(path.lastIndexOf('.', end - 1), path.lastIndexOf('[', end - 1))) {
    const start = path.slice(0, end);
    const name = names[start] ?? (start in draft ? (start as keyof D) : undefined);
    if (name !== undefined) return { name, rest: path.slice(end).replace(/^\./, '') };
  }
  return undefined;
}

/** The longest time of an attempt. */
const MOST_MINUTES = 7 * 24 * 60;

/** Converts texts of a form to the values of the API, and notes those that are invalid. */
export class Texts<D extends object> {
  readonly problems: Problems<D> = {};

  constructor(private readonly draft: D) {}

  text(field: keyof D): string | null {
    return String(this.draft[field]).trim() || null;
  }

  required(field: keyof D): string | null {
    const value = this.text(field);
    if (value === null) this.problems[field] = 'is required';
    return value;
  }

  number(field: keyof D): number | null {
    const text = this.text(field);
    if (text === null) return null;
    const value = Number(text);
    if (Number.isFinite(value)) return value;
    this.problems[field] = 'must be a number';
    return null;
  }

  whole(field: keyof D): number | null {
    const value = this.number(field);
    if (value === null || Number.isInteger(value)) return value;
    this.problems[field] = 'must be a whole number';
    return null;
  }

  /** A number of minutes as milliseconds. The range is checked here, since the API names it in milliseconds. */
  minutes(field: keyof D, most = MOST_MINUTES): number | null {
    const value = this.number(field);
    if (value === null) return null;
    if (value <= 0) this.problems[field] = 'must be more than 0';
    else if (value > most) this.problems[field] = `must be at most ${count(most)} minutes, ${span(most * MINUTE_MS)}`;
    return Math.round(value * MINUTE_MS);
  }

  /** The values that `parse` finds in a text; null without any. An error that it throws is the field's problem. */
  values<Value>(field: keyof D, parse: (text: string) => Value[]): Value[] | null {
    const values = this.checked(field, () => parse(String(this.draft[field])));
    return values && values.length > 0 ? values : null;
  }

  /** The environment variables in the rows of a field; null without any. */
  variables(field: keyof D): Variables | null {
    return this.checked(field, () => variablesOf(this.draft[field] as VariableDraft[]));
  }

  private checked<Value>(field: keyof D, read: () => Value): Value | null {
    try {
      return read();
    } catch (error) {
      this.problems[field] = (error as Error).message;
      return null;
    }
  }

  /** A JSON list; an empty one if the text is empty. */
  list(field: keyof D): unknown[] {
    const text = this.text(field);
    if (text === null) return [];
    const parsed = parseJson(text);
    if ('value' in parsed && Array.isArray(parsed.value)) return parsed.value;
    this.problems[field] = 'error' in parsed ? parsed.error : 'must be a JSON list';
    return [];
  }

  /** A JSON object; null if the text is empty. */
  json(field: keyof D): Body | null {
    const text = this.text(field);
    if (text === null) return null;
    const parsed = parseJson(text);
    if ('error' in parsed) this.problems[field] = parsed.error;
    else if (typeof parsed.value !== 'object' || parsed.value === null || Array.isArray(parsed.value))
      this.problems[field] = 'must be a JSON object';
    else return parsed.value as Body;
    return null;
  }
}
