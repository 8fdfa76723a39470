import { expect, test, vi } from 'vitest';

import { isOwnPath, issuerName, pageInsteadOf, readNext, rememberedPage, rememberNext } from './session';

test.each(['/jobs', '/jobs?status=failed', '/jobs/ir-1/log?attempt=2'])('%s is a page to return to', (path) => {
  expect(isOwnPath(path)).toBe(true);
});

test.each([
  '',
  '/',
  '//evil.example',
  '/\\evil.example',
  'https://evil.example',
  '/\t/evil.example',
  '/login?next=/jobs',
  '/api/auth/link?token=x',
  'javascript:alert(1)',
])('%s is not', (path) => {
  expect(isOwnPath(path)).toBe(false);
});

test('a remembered page expires, and a broken record is ignored', () => {
  expect(readNext(JSON.stringify({ path: '/jobs', at: 0 }), 60_000)).toBe('/jobs');
  expect(readNext(JSON.stringify({ path: '/jobs', at: 0 }), 3_600_000)).toBeUndefined();
  expect(readNext(JSON.stringify({ path: '//evil.example', at: 0 }), 0)).toBeUndefined();
  expect(readNext('{', 0)).toBeUndefined();
});

function stubStorage(): void {
  const stored = new Map<string, string>();
  vi.stubGlobal('window', {
    localStorage: {
      getItem: (name: string) => stored.get(name) ?? null,
      setItem: (name: string, text: string) => stored.set(name, text),
      removeItem: (name: string) => stored.delete(name),
    },
  });
}

test('the overview gives way to the remembered page once', () => {
  stubStorage();
  rememberNext('/jobs?status=failed');
  expect([pageInsteadOf('/'), pageInsteadOf('/')]).toEqual(['/jobs?status=failed', undefined]);
});

test('the sign-in page reads the remembered page and leaves it', () => {
  stubStorage();
  expect(rememberedPage()).toBeUndefined();
  rememberNext('/jobs?status=failed');
  expect([rememberedPage(), rememberedPage(), pageInsteadOf('/')]).toEqual(Array(3).fill('/jobs?status=failed'));
});

test('any other page of a signed-in user forgets the remembered page', () => {
  stubStorage();
  rememberNext('/jobs?status=failed');
  expect([pageInsteadOf('/jobs?status=failed'), pageInsteadOf('/')]).toEqual([undefined, undefined]);
});

test('an OpenID provider is named by its host and path', () => {
  expect(['https://login.example.com/', 'http://127.0.0.1:9000/realms/one'].map(issuerName)).toEqual([
    'login.example.com',
    '127.0.0.1:9000/realms/one',
  ]);
});
