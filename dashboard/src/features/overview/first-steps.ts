/** The steps of a first visit, and which of them are done. */

import type { JobFacets } from '../../api/jobs';
import type { System } from '../../api/keys';
import { canNoneRun } from '../../ui/providers';

export type StepName = 'agent' | 'job' | 'github' | 'trigger';

/** The owners of jobs that events have started begin with this. */
const EVENT_OWNER = 'webhook-source/';

/** Return the steps in their order, each with whether it is done. Jobs of the provider `mock` only play an agent. */
export function firstSteps(system: System, facets: JobFacets): [StepName, boolean][] {
  const { providers, github } = system;
  return [
    ['agent', providers.length > 0 && !canNoneRun(providers)],
    ['job', facets.model.some(({ value }) => value !== 'mock')],
    ['github', github.sources.length > 0],
    ['trigger', facets.owner.some(({ value }) => value.startsWith(EVENT_OWNER))],
  ];
}
