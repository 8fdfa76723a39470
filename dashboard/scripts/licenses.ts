/** The licence notices of the packages in the build, which their licences require of every copy. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import type { Plugin } from 'vite';

const NOTICE = /^(licen[cs]e|copying|notice)/i;

interface Manifest {
  name: string;
  version: string;
  license?: string;
}

/** The folder of the package with a module; undefined for a module of our own. */
function packageOf(module: string): string | undefined {
  let folder = dirname(module);
  if (!folder.includes('/node_modules/')) return undefined;
  // Some packages have a package.json without a name in a folder of each module system.
  while (!isPackage(folder)) folder = dirname(folder);
  return folder;
}

function isPackage(folder: string): boolean {
  const file = join(folder, 'package.json');
  return existsSync(file) && 'version' in (JSON.parse(readFileSync(file, 'utf8')) as Manifest);
}

function noticeOf(folder: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest;
  const files = readdirSync(folder)
    .filter((file) => NOTICE.test(file))
    .sort();
  if (files.length === 0 && !license) throw new Error(`the package ${name} has no licence`);
  const texts = files.map((file) => readFileSync(join(folder, file), 'utf8').trim());
  return [`${name} ${version}${license ? ` (${license})` : ''}`, ...texts].join('\n\n');
}

/** Write `licenses.txt` with the notices of all packages of which the build has a module. */
export const licenses: Plugin = {
  name: 'licenses',
  generateBundle(_, bundle) {
    const modules = Object.values(bundle).flatMap((file) => (file.type === 'chunk' ? file.moduleIds : []));
    const styles = [...this.getModuleIds()].filter((module) => /\.css($|\?)/.test(module));
    const paths = [...modules, ...styles].map((module) => module.replace(/^\0/, '').split('?')[0] ?? '');
    const folders = [...new Set(paths.map(packageOf).filter((folder) => folder !== undefined))].sort();
    const source = `${folders.map(noticeOf).join(`\n\n${'-'.repeat(80)}\n\n`)}\n`;
    this.emitFile({ type: 'asset', fileName: 'licenses.txt', source });
  },
};
