/** Settings of this browser. Reading and writing never fail, since a browser may refuse storage. */

export function readSetting(name: string): string {
  try {
    return localStorage.getItem(name) ?? '';
  } catch {
    return '';
  }
}

export function writeSetting(name: string, value: string): void {
  try {
    if (value) localStorage.setItem(name, value);
    else localStorage.removeItem(name);
  } catch {
    // the setting lasts until the page is closed
  }
}
