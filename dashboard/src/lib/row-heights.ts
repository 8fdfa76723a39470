/** Rows of which the sums are stored together: the start of a row then costs little, also in a list of a million. */
const GROUP = 500;

interface Group {
  /** The sum of `rows`. */
  extra: number;
  /** The height of each row beyond the usual one. */
  rows: Map<number, number>;
}

/** The heights of the rows of a list. A row has the usual height until another one is measured. */
export class RowHeights {
  private readonly groups = new Map<number, Group>();

  constructor(readonly usual: number) {}

  /** Forget what is measured. */
  clear(): void {
    this.groups.clear();
  }

  /** Store the measured height of a row, and return whether it has changed. */
  set(row: number, height: number): boolean {
    const number = Math.floor(row / GROUP);
    const group = this.groups.get(number) ?? { extra: 0, rows: new Map<number, number>() };
    const extra = height - this.usual;
    const change = extra - (group.rows.get(row) ?? 0);
    if (Math.abs(change) < 0.1) return false; // a fraction of a pixel, at some zoom factors
    this.groups.set(number, group);
    group.extra += change;
    group.rows.set(row, extra);
    return true;
  }

  of(row: number): number {
    return this.usual + (this.groups.get(Math.floor(row / GROUP))?.rows.get(row) ?? 0);
  }

  /** The distance from the start of the list to a row; of the number of rows, the height of all. */
  start(row: number): number {
    const number = Math.floor(row / GROUP);
    let start = row * this.usual;
    for (const [each, { extra }] of this.groups) if (each < number) start += extra;
    for (const [each, extra] of this.groups.get(number)?.rows ?? []) if (each < row) start += extra;
    return start;
  }

  /** The row at a distance from the start of the list. */
  rowAt(position: number): number {
    if (this.groups.size === 0) return Math.floor(position / this.usual);
    let [low, high] = [0, Math.ceil(Math.max(0, position) / this.usual) + 1]; // no row is lower than the usual height
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (this.start(middle) <= position) low = middle;
      else high = middle;
    }
    return low;
  }

  /** The number of rows that begin before a distance from the start of the list. */
  rowsUntil(position: number): number {
    const row = this.rowAt(position);
    return this.start(row) < position ? row + 1 : row;
  }
}
