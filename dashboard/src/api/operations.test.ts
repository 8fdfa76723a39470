import { globSync, readFileSync } from 'node:fs';

import { expect, test } from 'vitest';

/** Operations for which no page has a call, with the reason. */
const NOT_CALLED: Readonly<Record<string, string>> = {
  'POST /api/uploads': 'sent by XMLHttpRequest, which reports progress',
  'POST /api/workspace-uploads': 'sent by XMLHttpRequest, which reports progress',
  'POST /api/webhooks/github': 'for deliveries of GitHub',
  'POST /webhooks/{name}': 'for deliveries of webhook sources',
  'GET /api/agents/triggers': 'ignores filters; the test of an agent explains each trigger',
  'GET /api/agents/by-trigger/{trigger_name}':
    'the list of agents is loaded for other reasons, and has the trigger names',
  'PUT /api/secrets/{name}': 'for programs: no page asks for a secret',
  'DELETE /api/secrets/{name}': 'for programs: no page asks for a secret',
  'GET /api/stats': 'the facets of jobs have the same counts, with filters',
  'GET /api/config/sources': 'a stub for old front ends',
  'GET /api/config/sources/{source}': 'a stub for old front ends',
  'PUT /api/config/sources/{source}': 'a stub for old front ends',
  'DELETE /api/config/sources/{source}': 'a stub for old front ends',
};

const root = new URL('..', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), 'utf8');
const sources = globSync('**/*.{ts,tsx}', { cwd: root })
  .filter((path) => !/\.test\.ts$|schema\.d\.ts$/.test(path))
  .map(read)
  .join('\n');

/** The operations of the OpenAPI document, such as `GET /api/jobs/{job_id}`. */
function operations(): string[] {
  const [paths = ''] = read('api/schema.d.ts').split('export type webhooks');
  return [...paths.matchAll(/^ {4}"(\/[^"]*)": \{$([\s\S]*?)^ {4}\};$/gm)].flatMap(([, path = '', methods = '']) =>
    [...methods.matchAll(/^ {8}(get|put|post|delete|patch): operations/gm)].map(
      ([, method = '']) => `${method.toUpperCase()} ${path}`,
    ),
  );
}

/**
 * Return whether a page calls an operation: by the client, or by the address alone, as in links, workers and streams.
 */
function isCalled(operation: string): boolean {
  const [method = '', path = ''] = operation.split(' ');
  if (sources.includes(`client.${method}('${path}'`)) return true;
  const address = path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '\\$\\{[^}]*\\}');
  return method === 'GET' && new RegExp(`['"\`]${address}['"\`?$]`).test(sources);
}

test('each operation of the API is called by a page, or listed as not called', () => {
  const all = operations();
  expect(all.length).toBeGreaterThan(50);
  expect(all.filter((operation) => !isCalled(operation)).sort()).toEqual(Object.keys(NOT_CALLED).sort());
});
