import { expect, test } from 'vitest';

import type { JobFacets } from '../../api/jobs';
import type { System } from '../../api/keys';
import { firstSteps } from './first-steps';

const facetsOf = (model: string[], owner: string[] = []) => {
  const counted = (values: string[]) => values.map((value) => ({ value, count: 1 }));
  return { model: counted(model), owner: counted(owner) } as JobFacets;
};

const systemOf = (running: string[], sources: number) =>
  ({
    providers: ['claude', 'mock'].map((name) => ({ name, canRun: running.includes(name) })),
    github: { sources: Array.from({ length: sources }, () => ({ name: 'github' })) },
  }) as System;

test('nothing is done on a new engine, whose demo only plays an agent', () => {
  expect(firstSteps(systemOf(['mock'], 0), facetsOf(['mock'], ['admin']))).toEqual([
    ['agent', false],
    ['job', false],
    ['github', false],
    ['trigger', false],
  ]);
});

test('each step is done by what it leaves', () => {
  const steps = firstSteps(systemOf(['claude', 'mock'], 1), facetsOf(['mock', 'opus'], ['webhook-source/github']));
  expect(steps.every(([, done]) => done)).toBe(true);
});
