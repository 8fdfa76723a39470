/** Check the sizes of the build, gzipped. The first load is what index.html names, with all that it imports. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const built = fileURLToPath(new URL('../dist', import.meta.url));
const KB = 1000;
const size = (name) => gzipSync(readFileSync(join(built, name)), { level: 9 }).length / KB;
const sum = (names) => names.reduce((total, name) => total + size(name), 0);

const all = readdirSync(built, { recursive: true })
  .map(String)
  .filter((name) => /\.\w+$/.test(name));
const index = readFileSync(join(built, 'index.html'), 'utf8');
const first = [...index.matchAll(/(?:src|href)="\/(assets\/[^"]+)"/g)].map((match) => match[1]);
const budgets = [
  ['JavaScript of the first load', sum(first.filter((name) => name.endsWith('.js'))), 140],
  ['CSS of the first load', sum(first.filter((name) => name.endsWith('.css'))), 15],
  ['whole build', sum(all), 450],
];
for (const [what, kilobytes, limit] of budgets) {
  console.log(`${kilobytes > limit ? 'TOO LARGE' : 'ok'}  ${what}: ${kilobytes.toFixed(1)} of ${limit} KB`);
}
process.exitCode = budgets.some(([, kilobytes, limit]) => kilobytes > limit) ? 1 : 0;
