/** Parse JSON. An error names the line and the column. */
export function parseJson(text: string): { value: unknown } | { error: string } {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const match = /position (\d+)/.exec(message);
    if (!match || message.includes('line ')) return { error: message };
    const before = text.slice(0, Number(match[1])).split('\n');
    return { error: `${message}, line ${before.length} column ${(before.at(-1)?.length ?? 0) + 1}` };
  }
}

/** Whether two values are equal as JSON. */
export function isSameJson(one: unknown, other: unknown): boolean {
  return canonical(one) === canonical(other);
}

/** JSON with sorted names, so that equal values have equal texts. */
function canonical(value: unknown): string | undefined {
  return JSON.stringify(value, (_, each: unknown) =>
    typeof each === 'object' && each !== null && !Array.isArray(each) ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1))) : each);
}
