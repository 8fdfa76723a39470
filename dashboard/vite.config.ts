import { createHash } from 'node:crypto';
import { relative } from 'node:path';

import react from '@vitejs/plugin-react';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

import { licenses } from './scripts/licenses';

const engine = process.env['LABRATS_URL'] ?? 'http://127.0.0.1:3001';

/** State the order of the layers first. The minifier drops the statement, and then their order of appearance counts. */
const layers: Plugin = {
  name: 'layers',
  enforce: 'post',
  generateBundle(_, bundle) {
    for (const file of Object.values(bundle)) {
      if (file.type === 'asset' && file.fileName.endsWith('.css'))
        file.source = `@layer reset,tokens,base,ui,features;${String(file.source)}`;
    }
  },
};

/** The name of a class in the build. The default has its line in the file as well, which makes names longer. */
function scopedName(name: string, file: string): string {
  const path = relative(import.meta.dirname, file.split('?')[0] ?? file).replaceAll('\\', '/');
  return `_${name}_${createHash('sha256').update(path).digest('base64url').slice(0, 3)}`;
}

export default defineConfig({
  plugins: [react(), layers, licenses],
  build: {
    outDir: 'dist',
    target: 'es2023',
    assetsInlineLimit: 0, // the policy of the page allows scripts and styles from files only
    modulePreload: { polyfill: false },
    cssCodeSplit: false, // several files would be loaded in any order, and so would their layers
    chunkSizeWarningLimit: 600,
  },
  worker: { format: 'es' },
  css: {
    modules: {
      localsConvention: 'camelCaseOnly',
      generateScopedName: scopedName,
    },
  },
  server: {
    proxy: { '/api': { target: engine, changeOrigin: true, headers: { origin: engine } } },
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
