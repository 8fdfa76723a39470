/** The storage of the browser. Nothing here fails: a browser may refuse to store, or have no space. */

type Area = 'localStorage' | 'sessionStorage';

/** The stored text; null if there is none. */
export function readStored(area: Area, name: string): string | null {
  try {
    return window[area].getItem(name);
  } catch {
    return null;
  }
}

/** Store a text, or remove it: what cannot be stored lasts until the page is closed. */
export function writeStored(area: Area, name: string, text: string | undefined): void {
  try {
    window[area].removeItem(name); // else a refused text would leave the earlier one
    if (text !== undefined) window[area].setItem(name, text);
  } catch {
    // see above
  }
}

/** Remove all texts whose names begin with `start`. */
export function removeStored(area: Area, start: string): void {
  try {
    for (const name of Object.keys(window[area])) if (name.startsWith(start)) window[area].removeItem(name);
  } catch {
    // nothing is stored
  }
}

/** The stored value; undefined if there is none, or no JSON. */
export function readStoredJson(area: Area, name: string): unknown {
  try {
    return JSON.parse(readStored(area, name) ?? '') as unknown;
  } catch {
    return undefined;
  }
}
