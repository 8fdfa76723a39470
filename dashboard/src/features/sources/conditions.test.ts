import { expect, test } from 'vitest';

import { conditionInWords } from './conditions';

test.each([
  ['True', 'Listening', 'it accepts deliveries', 'Ready: it accepts deliveries'],
  ['False', 'NoSecret', 'there is no Secret', 'Ready is false (NoSecret): there is no Secret'],
  ['Unknown', 'Starting', 'it starts', 'Ready is unknown (Starting): it starts'],
  ['False', 'SwitchedOff', 'the source is disabled', 'Switched off: it refuses deliveries.'],
])('a condition that is %s because of %s is explained', (status, reason, message, words) => {
  expect(conditionInWords({ type: 'Ready', status, reason, message } as Parameters<typeof conditionInWords>[0])).toBe(
    words,
  );
});
