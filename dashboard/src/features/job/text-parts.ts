/** Long texts in parts. */

/** Characters of one part. Markdown of this length takes a fraction of a second on a slow processor. */
export const PART = 200_000;

/**
 * Cut a text into parts of at most PART characters, after the end of a line where there is one near the end of the
 * part.
 */
export function partsOf(text: string): string[] {
  const parts: string[] = [];
  for (let start = 0; start < text.length || start === 0;) {
    const end = endOf(text, start);
    parts.push(text.slice(start, end));
    if (end >= text.length) break;
    start = end;
  }
  return parts;
}

function endOf(text: string, start: number): number {
  const end = start + PART;
  if (end >= text.length) return text.length;
  const line = text.lastIndexOf('\n', end - 1) + 1;
  if (line > start + PART / 2) return line;
  return /[\uD800-\uDBFF]/.test(text[end - 1] ?? '') ? end - 1 : end; // a pair of surrogates is one character
}
