/** Numbers, times and amounts as text. All of them in one form, so that columns can be compared. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

export const NOTHING = '—';

const two = (value: number) => String(value).padStart(2, '0');

/** A whole number with separators: 1,922. Without Intl, whose first use takes long on a slow processor. */
export function count(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** A count with its noun: "1 job", "3 jobs". */
export function counted(value: number, noun: string, plural = `${noun}s`): string {
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

/** A place in a line: "Next in line", "2nd in line". */
export function placeInLine(place: number): string {
  return place === 1 ? 'Next in line' : `${ordinal(place)} in line`;
}

let ordinals: Intl.PluralRules | undefined;

/** A place by number: 2nd, 3rd, 11th. */
export function ordinal(place: number): string {
  ordinals ??= new Intl.PluralRules('en', { type: 'ordinal' });
  return `${count(place)}${{ one: 'st', two: 'nd', few: 'rd', other: 'th', many: 'th', zero: 'th' }[ordinals.select(place)]}`;
}

/** A count in at most four characters: 81k, 1.2M. */
export function compact(value: number): string {
  for (const [limit, unit] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    if (value >= limit) {
      const scaled = value / limit;
      return `${scaled < 9.95 ? scaled.toFixed(1).replace(/\.0$/, '') : Math.round(scaled)}${unit}`;
    }
  }
  return String(Math.round(value));
}

/** A length of time in at most two units: 0.4s, 41s, 3m12s, 2h05m, 3d04h. */
export function duration(milliseconds: number): string {
  const ms = Math.max(0, milliseconds);
  if (ms < 10 * SECOND) return `${(Math.floor(ms / 100) / 10).toFixed(1)}s`;
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)}s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)}m${two(Math.floor((ms % MINUTE) / SECOND))}s`;
  if (ms < DAY) return `${Math.floor(ms / HOUR)}h${two(Math.floor((ms % HOUR) / MINUTE))}m`;
  return `${Math.floor(ms / DAY)}d${two(Math.floor((ms % DAY) / HOUR))}h`;
}

/** A length of time that may be far below a second: 0, <1ms, 40ms, 1.2s. */
export function latency(milliseconds: number): string {
  const ms = Math.round(milliseconds);
  if (ms === 0) return milliseconds > 0 ? '<1ms' : '0';
  return ms < SECOND ? `${ms}ms` : duration(ms);
}

/** A position in time since a start: 00:41, 1:02:03. */
export function offset(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / SECOND));
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${two(m)}:${two(s)}`;
}

/** How long ago a time is: now, 3m, 2h, 5d. */
export function age(at: Date, now: number): string {
  const ms = now - at.getTime();
  if (ms < 5 * SECOND) return 'now';
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)}s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)}m`;
  if (ms < DAY) return `${Math.floor(ms / HOUR)}h`;
  return `${Math.floor(ms / DAY)}d`;
}

/** A cost in US dollars. An unknown cost is not zero. */
export function cost(usd: number | null | undefined): string {
  if (usd === null || usd === undefined) return NOTHING;
  if (usd > 0 && usd < 0.01) return `$${usd.toFixed(4)}`;
  const [whole = '', cents] = usd.toFixed(2).split('.');
  return `$${count(Number(whole))}.${cents}`;
}

/** The cost of several jobs: $0.42; at least $0.42, if it is unknown of some jobs; unknown. */
export function costs({ costUsd, unknownCosts }: { costUsd: number | null; unknownCosts: number }): string {
  if (unknownCosts === 0) return cost(costUsd);
  return costUsd ? `at least ${cost(costUsd)}` : 'unknown';
}

/** A size in bytes: 512 B, 1.2 MB. */
export function bytes(value: number): string {
  const power = Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10));
  const size = value / 1024 ** power;
  return `${power === 0 || size >= 99.95 ? Math.round(size) : Number(size.toFixed(1))} ${BYTE_UNITS[power] ?? ''}`;
}

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

const SPANS = [
  [86_400_000, 'day'],
  [3_600_000, 'hour'],
  [60_000, 'minute'],
  [1_000, 'second'],
] as const;

/** A setting that is a time, in the largest unit that divides it: 10 minutes, 1 day. */
export function span(ms: number): string {
  const [unit, name] = SPANS.find(([each]) => ms % each === 0) ?? SPANS[3];
  return ms % unit === 0 ? counted(ms / unit, name) : `${(ms / unit).toFixed(1)} ${name}s`;
}

/** A local day without its year: 3 Jan. */
export function dayOfYear(at: Date): string {
  return `${at.getDate()} ${MONTHS[at.getMonth()] ?? ''}`;
}

/** A local day: 3 Jan 2030. */
export function dayOf(at: Date): string {
  return `${dayOfYear(at)} ${at.getFullYear()}`;
}

/** A full local time with its zone, for titles: 3 Jan 2030, 14:02:07 UTC+1. Without Intl, like `count`. */
export function fullTime(at: Date): string {
  const minutes = -at.getTimezoneOffset();
  const [h, m] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  const zone = minutes === 0 ? '' : `${minutes < 0 ? '-' : '+'}${h}${m > 0 ? `:${two(m)}` : ''}`;
  return `${dayOf(at)}, ${timeOfDay(at)} UTC${zone}`;
}

/** A local time, with its date unless that is today: 14:02:07; 3 Jan, 09:00:00. */
export function clock(time: string | Date, now = new Date()): string {
  const at = new Date(time);
  return at.toDateString() === now.toDateString() ? timeOfDay(at) : `${dayOfYear(at)}, ${timeOfDay(at)}`;
}

/** A time of day: 14:02:07. */
export function timeOfDay(at: Date): string {
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}
