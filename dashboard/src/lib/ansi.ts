/** Terminal output as spans of text with style classes. Nothing in it is ever read as HTML. */

export interface Span {
  text: string;
  /** Names of styles: `bold`, `dim`, `italic`, `underline`, `fg-0`…`fg-15`. */
  styles: string[];
}

const SEQUENCE = /\u001b\[([0-9;:]*)m|\u001b\[[0-9;?]*[A-Za-ln-z]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)/g;
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f]/g;
/**
 * Characters that change the direction of text, or are invisible, except those that texts of people have: soft hyphens,
 * and the variations of emoji and ideographs. U+200D is neither where it joins two emoji.
 */
const DECEPTIVE =
  /[\u0080-\u009f\u2028\u2029]|(?![\u00ad\u200d\ufe00-\ufe0f\u{e0100}-\u{e01ef}])\p{Default_Ignorable_Code_Point}|(?<!\p{Extended_Pictographic}\ufe0f?|[\u{1f3fb}-\u{1f3ff}])\u200d|\u200d(?!\p{Extended_Pictographic})/gu;

/** Split a line of terminal output. SGR colours become styles, other sequences disappear. */
export function spans(line: string): Span[] {
  if (!line.includes('\u001b')) return [{ text: visible(line), styles: [] }];
  const result: Span[] = [];
  let style: Style = {};
  let position = 0;
  const add = (text: string) => {
    if (text) result.push({ text: visible(text), styles: classes(style) });
  };
  for (const match of line.matchAll(SEQUENCE)) {
    add(line.slice(position, match.index));
    position = match.index + match[0].length;
    if (match[1] !== undefined) style = apply(style, match[1]);
  }
  add(line.slice(position));
  return result;
}

/** The text of a line without escape sequences, as it is searched and copied. */
export function plain(line: string): string {
  return line.replace(SEQUENCE, '');
}

/** Replace control characters by symbols, and characters that deceive by their code. */
export function visible(text: string): string {
  return text
    .replace(CONTROL, (character) =>
      character === '\u007f' ? '␡' : String.fromCharCode(0x2400 + character.charCodeAt(0)),
    )
    .replace(DECEPTIVE, (character) => `⟨U+${character.codePointAt(0)?.toString(16).toUpperCase().padStart(4, '0')}⟩`);
}

/** Replace control and deceptive characters in each line of a text. */
export function visibleLines(text: string): string {
  return text.split('\n').map(visible).join('\n');
}

interface Style {
  bold?: boolean;
  dim?: boolean;
  italic?: boolean;
  underline?: boolean;
  colour?: number | undefined;
}

function apply(style: Style, parameters: string): Style {
  const codes = parameters.split(/[;:]/).map(Number);
  let next = { ...style };
  for (let index = 0; index < codes.length; index++) {
    const code = codes[index] ?? 0;
    if (code === 0) next = {};
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.underline = true;
    else if (code === 22) next = { ...next, bold: false, dim: false };
    else if (code === 23) next.italic = false;
    else if (code === 24) next.underline = false;
    else if (code >= 30 && code <= 37) next.colour = code - 30;
    else if (code >= 90 && code <= 97) next.colour = code - 82;
    else if (code === 39) next.colour = undefined;
    else if (code === 38 || code === 48) {
      const [mode, first = 0] = [codes[index + 1], codes[index + 2]];
      if (code === 38) next.colour = mode === 5 ? indexed(first) : named(codes.slice(index + 2, index + 5));
      index += mode === 5 ? 2 : 4;
    }
  }
  return next;
}

/** The intensities of red, green and blue in the cube of 216 colours. */
const CUBE = [0, 95, 135, 175, 215, 255];

/** The named colour that is most like one of the 256. The themes have colours of enough contrast for those. */
function indexed(index: number): number | undefined {
  if (index < 16) return index;
  if (index > 255) return undefined;
  if (index > 231) return named(Array<number>(3).fill(8 + (index - 232) * 10));
  const place = index - 16;
  return named([Math.floor(place / 36), Math.floor(place / 6) % 6, place % 6].map((each) => CUBE[each] ?? 0));
}

const GREY_RANGE = 48;

function named(rgb: readonly number[]): number {
  const [least, most] = [Math.min(...rgb), Math.max(...rgb)];
  if (most - least < GREY_RANGE) return most < 128 ? 8 : 7;
  const middle = (least + most) / 2;
  return rgb.reduce((bits, each, position) => bits + (each > middle ? 1 << position : 0), 0);
}

function classes(style: Style): string[] {
  const names = (['bold', 'dim', 'italic', 'underline'] as const).filter((name) => style[name]);
  return style.colour === undefined ? names : [...names, `fg-${style.colour}`];
}
