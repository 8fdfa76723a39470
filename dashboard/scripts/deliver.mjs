/** Copy the build to labrats/dashboard, from where the engine serves it: compressed, and the index last. */
import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const built = fileURLToPath(new URL('../dist', import.meta.url));
const served = fileURLToPath(new URL('../../labrats/dashboard', import.meta.url));
const INDEX = 'index.html';
const COMPRESSIBLE = /\.(js|css|html|svg|json|txt|webmanifest)$/;
const MIN_BYTES = 512;

/** List the files below a folder, as paths relative to it. */
function files(folder) {
  return readdirSync(folder, { recursive: true })
    .map(String)
    .filter((name) => statSync(join(folder, name)).isFile());
}

function compress(content) {
  const quality = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
  return { '.br': brotliCompressSync(content, { params: quality }), '.gz': gzipSync(content, { level: 9 }) };
}

function deliver(name) {
  const target = join(served, name);
  mkdirSync(dirname(target), { recursive: true });
  const content = readFileSync(join(built, name));
  if (COMPRESSIBLE.test(name) && content.length >= MIN_BYTES) {
    for (const [suffix, bytes] of Object.entries(compress(content))) writeFileSync(target + suffix, bytes);
  }
  cpSync(join(built, name), `${target}.new`);
  renameSync(`${target}.new`, target);
}

const names = files(built).sort((a, b) => Number(a === INDEX) - Number(b === INDEX));
mkdirSync(served, { recursive: true });
names.forEach(deliver);
const current = new Set(names);
for (const name of files(served)) {
  if (!current.has(name.replace(/\.(br|gz)$/, ''))) rmSync(join(served, name));
}
console.log(`Delivered ${names.length} files to ${relative(process.cwd(), served)}.`);
