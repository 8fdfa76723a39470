import { expect, test } from 'vitest';

import { Hits, type Search } from './hits';

const ALL = [5, 10, 15, 20, 25];
const engine: Search = ({ after, before, limit }) =>
  Promise.resolve({
    total: ALL.length,
    lines:
      after !== undefined
        ? ALL.filter((line) => line > after).slice(0, limit)
        : ALL.filter((line) => before === undefined || line < before).slice(-limit),
  });

async function hitsOf(limit: number): Promise<Hits> {
  return new Hits(await engine({ after: 0, limit }));
}

test.each([2, 5, 1000])('hits follow each other around the ends, with pages of %d', async (limit) => {
  const hits = await hitsOf(limit);
  const [forward, backward] = [[0], [30]];
  for (let step = 0; step < 6; step++) {
    forward.push((await hits.seek(forward.at(-1) ?? 0, 1, engine)) ?? 0);
    backward.push((await hits.seek(backward.at(-1) ?? 0, -1, engine)) ?? 0);
  }
  expect(forward).toEqual([0, ...ALL, 5]);
  expect(backward).toEqual([30, ...ALL.toReversed(), 25]);
  expect(hits.total).toBe(5);
});

test('hits of the first page have numbers', async () => {
  const hits = await hitsOf(2);
  expect([hits.numberOf(10), hits.numberOf(15), hits.numberOf(undefined)]).toEqual([2, undefined, undefined]);
});

test('a search without hits leads nowhere', async () => {
  const none = new Hits({ lines: [], total: 0 });
  expect([none.total, await none.seek(3, 1, engine)]).toEqual([0, undefined]);
});
