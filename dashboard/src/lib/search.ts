/** Search parameters in plain form: `?status=failed&status=active&q=login`. Every value is text. */

export type SearchValues = Record<string, string | string[]>;

/** Parse the search part of a URL. A name that occurs several times has a list. */
export function parseSearch(text: string): SearchValues {
  const values: SearchValues = {};
  const parameters = new URLSearchParams(text);
  for (const name of new Set(parameters.keys())) {
    const all = parameters.getAll(name);
    values[name] = all.length === 1 ? (all[0] ?? '') : all;
  }
  return values;
}

/** Write search parameters. Empty and undefined values are left out. */
export function stringifySearch(search: Record<string, unknown>): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(search)) {
    for (const each of Array.isArray(value) ? (value as unknown[]) : [value]) {
      if (typeof each === 'string' && each !== '') parameters.append(name, each);
      else if (typeof each === 'number' || each === true) parameters.append(name, String(each));
    }
  }
  const text = parameters.toString();
  return text ? `?${text}` : '';
}

/** The text of a parameter; the first one of a list. */
export function text(value: unknown): string | undefined {
  const first: unknown = Array.isArray(value) ? value[0] : value;
  return typeof first === 'string' && first !== '' ? first : undefined;
}

/** All values of a parameter that are among the allowed ones. */
export function texts<T extends string>(value: unknown, allowed: readonly T[]): T[] {
  const all: unknown[] = Array.isArray(value) ? value : [value];
  return allowed.filter((each) => all.includes(each));
}

/** A parameter that has one of the allowed values. */
export function oneOf<T extends string>(value: unknown, allowed: readonly T[]): T | undefined {
  return allowed.find((each) => each === text(value));
}

/** A parameter that is a positive whole number, as text in the URL or as a number in a link. */
export function positive(value: unknown): number | undefined {
  const number = typeof value === 'number' ? value : Number(text(value));
  return Number.isSafeInteger(number) && number > 0 ? number : undefined;
}

/** Whether a parameter is set, as text in the URL or as `true` in a link. */
export function isSet(value: unknown): boolean {
  return value === true || text(value) !== undefined;
}
