/** Parse JSON. An error names the line and the column. */
export function parseJson(text: string): { value: unknown } | { error: string } {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (message.includes('line ')) return { error: message };
    const position = positionIn(message) ?? positionOfError(text);
    if (position === undefined) return { error: message };
    const before = text.slice(0, position).split('\n');
    return { error: `${message}, line ${before.length} column ${(before.at(-1)?.length ?? 0) + 1}` };
  }
}

function positionIn(message: string): number | undefined {
  const match = /position (\d+)/.exec(message);
  return match ? Number(match[1]) : undefined;
}

/** The position of the first character that no JSON can have there. Chrome omits it for unexpected tokens. */
function positionOfError(text: string): number | undefined {
  if (!isBeginning('{')) return undefined; // another browser, with other messages
  let [valid, invalid] = [0, text.length + 1];
  while (invalid - valid > 1) {
    const middle = Math.floor((valid + invalid) / 2);
    if (isBeginning(text.slice(0, middle))) valid = middle;
    else invalid = middle;
  }
  return valid;
}

/** Whether a text is JSON, or begins one. */
function isBeginning(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch (error) {
    const message = error instanceof Error ? error.message : '';
    return message.startsWith('Unexpected end') || (positionIn(message) ?? -1) >= text.length;
  }
}

/** Whether two values are equal as JSON. */
export function isSameJson(one: unknown, other: unknown): boolean {
  return canonical(one) === canonical(other);
}

/** JSON with sorted names, so that equal values have equal texts. */
function canonical(value: unknown): string | undefined {
  return JSON.stringify(value, (_, each: unknown) =>
    typeof each === 'object' && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
      : each,
  );
}
