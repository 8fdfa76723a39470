/** The hits of a search in one attempt: the first ones are known by line, all of them by number. */

export interface SearchPage {
  /** Lines of the attempt, in order. */
  lines: number[];
  /** The number of hits in the attempt. */
  total: number;
}

/** Search from a line on (`after`), or backwards (`before`; undefined: from the end). */
export type Search = (query: { after?: number; before?: number; limit: number }) => Promise<SearchPage>;

export class Hits {
  readonly lines: readonly number[];
  readonly total: number;

  /** page: the first one. */
  constructor(page: SearchPage) {
    this.lines = page.lines;
    this.total = page.total;
  }

  /** The number of a line among the hits, counted from 1; undefined if it is unknown. */
  numberOf(line: number | undefined): number | undefined {
    const index = line === undefined ? -1 : this.lines.indexOf(line);
    return index < 0 ? undefined : index + 1;
  }

  /** Find the next hit after a line, or the previous one before it, around the ends. */
  async seek(from: number, step: 1 | -1, search: Search): Promise<number | undefined> {
    const { lines } = this;
    const isComplete = lines.length === this.total;
    const last = lines.at(-1) ?? 0;
    if (step === 1) {
      const next = lines.find((line) => line > from);
      if (next !== undefined || isComplete) return next ?? lines[0];
      return (await search({ after: Math.max(from, last), limit: 1 })).lines[0] ?? lines[0];
    }
    if (isComplete || from <= last) {
      const previous = lines.findLast((line) => line < from);
      if (previous !== undefined || isComplete) return previous ?? last;
      return (await search({ limit: 1 })).lines.at(-1);
    }
    return (await search({ before: from, limit: 1 })).lines.at(-1) ?? last;
  }
}
