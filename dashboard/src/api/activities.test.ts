import { expect, test } from 'vitest';

import { activityOf, applyActivities } from './activities';
import type { JobItem } from './jobs';

const running = { id: 'ir-1', status: 'active', activity: 'thinking' } as JobItem;

test('the feed is newer than the list, and a changed job newer than the feed', () => {
  expect(activityOf(running)).toBe('thinking');
  applyActivities({ activities: { 'ir-1': 'Bash: npm test' } });
  expect(activityOf(running)).toBe('Bash: npm test');
  expect(activityOf({ ...running, status: 'completed', activity: null })).toBeNull();
  applyActivities({ jobs: [running] });
  expect(activityOf(running)).toBe('thinking');
  applyActivities({ activities: { 'ir-1': 'Read: a.ts' } });
  applyActivities({ gone: ['ir-1'] });
  expect(activityOf(running)).toBe('thinking');
});
