import { expect, test } from 'vitest';

import { EventParser } from './event-stream';

const TEXT = 'id: a-1\ndata: {"counts":{}}\n\n: ping\n\ndata: one\ndata: two\n\nid: a-2\ndata: ü\n\ndata: cut off';
const EVENTS = [
  { id: 'a-1', data: '{"counts":{}}' },
  { id: undefined, data: 'one\ntwo' },
  { id: 'a-2', data: 'ü' },
];

test.each([1, 2, 3, 7, 1000])('events are complete in pieces of %d characters', (size) => {
  const parser = new EventParser();
  const pieces = TEXT.match(new RegExp(`[^]{1,${size}}`, 'g')) ?? [];
  expect(pieces.flatMap((piece) => parser.push(piece))).toEqual(EVENTS);
});
