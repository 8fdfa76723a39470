import { afterEach, expect, test, vi } from 'vitest';

afterEach(() => vi.unstubAllGlobals());

test('a job of a list is read without a search of all jobs, and not taken for one that names it', async () => {
  const addresses: URL[] = [];
  vi.stubGlobal(
    'Request',
    class extends Request {
      constructor(address: string, options: RequestInit) {
        super(new URL(address, 'http://127.0.0.1'), options);
      }
    },
  );
  vi.stubGlobal('fetch', ({ url }: Request) => {
    addresses.push(new URL(url));
    return Promise.resolve(
      Response.json({ jobs: [{ id: 'ir-2', title: 'Continue ir-1' }, { id: 'ir-1' }], next: null }),
    );
  });
  const { fetchItem } = await import('./jobs'); // the client takes the global ones when it is made

  expect(await fetchItem({ id: 'ir-1', createdAt: '2030-01-01T12:00:00Z' }, new AbortController().signal)).toEqual({
    id: 'ir-1',
  });

  expect(Object.fromEntries(addresses[0]?.searchParams ?? [])).toMatchObject({
    q: 'ir-1',
    from: '2030-01-01T12:00:00Z',
    to: '2030-01-01T12:00:01.000Z',
    omit: 'result',
  });
});
