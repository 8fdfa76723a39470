/** Environment variables of agents: each has a text, or a value of a Secret, which the API never shows. */

export interface SecretKey {
  secret: string;
  key: string;
}

export type Variables = Record<string, string | SecretKey>;

/** A variable in a form. value: its text, unless its value is that of a Secret. */
export interface VariableDraft {
  name: string;
  isSecret: boolean;
  value: string;
  secret: string;
  key: string;
}

export const NEW_VARIABLE: VariableDraft = { name: '', isSecret: false, value: '', secret: '', key: '' };

export function variableDrafts(variables: Variables | undefined): VariableDraft[] {
  return Object.entries(variables ?? {}).map(([name, value]) =>
    typeof value === 'string'
      ? { ...NEW_VARIABLE, name, value }
      : { ...NEW_VARIABLE, name, isSecret: true, secret: value.secret, key: value.key },
  );
}

/** The variables of a form; null without any. Rows without a text are left out. Throws an error with a sentence. */
export function variablesOf(drafts: readonly VariableDraft[]): Variables | null {
  const filled = drafts
    .map((each) => ({ ...each, name: each.name.trim(), secret: each.secret.trim(), key: each.key.trim() }))
    .filter(({ name, value, secret, key, isSecret }) => name || (isSecret ? secret || key : value));
  for (const [index, { name, isSecret, secret, key }] of filled.entries()) {
    if (name === '') throw new Error('Each variable needs a name.');
    if (filled.findIndex((other) => other.name === name) !== index) throw new Error(`${name} occurs twice.`);
    if (isSecret && (secret === '' || key === '')) throw new Error(`${name} needs the name and a key of a Secret.`);
  }
  const entries = filled.map(({ name, isSecret, value, secret, key }) => [name, isSecret ? { secret, key } : value]);
  return filled.length > 0 ? (Object.fromEntries(entries) as Variables) : null;
}
