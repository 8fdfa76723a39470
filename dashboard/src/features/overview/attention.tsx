import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';

import { queueQuery } from '../../api/models';
import { causes, sourcesQuery, type WebhookSource } from '../../api/sources';
import { visible } from '../../lib/ansi';
import { clock, counted } from '../../lib/format';
import { MINUTE_MS } from '../../lib/times';
import { Icon } from '../../ui/icons';
import { Panel } from '../../ui/page';
import { canNoneRun, useProviders } from '../../ui/providers';
import { Failure } from '../../ui/states';
import styles from './overview-page.module.css';

interface Problem {
  key: string;
  link: ReactNode;
  text: string;
}

/** Models that start no jobs, and webhook sources with problems. Nothing if there are none. */
export function Attention() {
  const ofModels = useModelProblems();
  const sources = useQuery({ ...sourcesQuery, refetchInterval: MINUTE_MS }); // refused deliveries become old
  const problems = [
    ...useProviderProblem(),
    ...ofModels,
    ...(sources.data?.webhookSources ?? []).flatMap(sourceProblems),
  ];
  if (problems.length === 0 && !sources.isLoadingError) return null;
  return (
    <Panel title="Needs attention">
      {sources.isLoadingError && (
        <div className={styles.pad}>
          <Failure error={sources.error} onRetry={() => void sources.refetch()} />
        </div>
      )}
      <ul>
        {problems.map(({ key, link, text }) => (
          <li key={key} className={styles.problem}>
            <Icon name="warning" size={14} />
            <p>
              {link} {text}
            </p>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function useProviderProblem(): Problem[] {
  if (!canNoneRun(useProviders())) return [];
  return [
    {
      key: 'providers',
      link: <Link to="/settings/system">No provider</Link>,
      text: 'can run a job: programs or credentials are missing.',
    },
  ];
}

function useModelProblems(): Problem[] {
  const { data } = useQuery(queueQuery);
  return (data?.queues ?? []).flatMap(({ provider, model, slots, waiting, pausedUntil }) => {
    const link = (
      <Link to="/models">
        {provider}/{visible(model)}
      </Link>
    );
    if (pausedUntil)
      return [
        {
          key: `${provider}/${model}`,
          link,
          text: `is paused until ${clock(pausedUntil)} at the request of its provider.`,
        },
      ];
    return slots === 0 && waiting > 0
      ? [
          {
            key: `${provider}/${model}`,
            link,
            text: `has no slots, and ${counted(waiting, 'job')} ${waiting === 1 ? 'waits' : 'wait'}.`,
          },
        ]
      : [];
  });
}

function sourceProblems(source: WebhookSource): Problem[] {
  const { id, name, enabled, conditions, refusedDeliveries } = source;
  if (!enabled) return []; // on purpose
  const failing = causes(conditions.filter((condition) => condition.status === 'False'));
  const problems = failing.map((condition) => ({
    key: `${id} ${condition.type}`,
    link: (
      <Link to="/sources/$id" params={{ id }}>
        {visible(name)}
      </Link>
    ),
    text: `refuses deliveries: ${visible(condition.message)}`,
  }));
  if (refusedDeliveries > 0)
    problems.push({
      key: `${id} refused`,
      link: (
        <Link to="/sources/$id" params={{ id }} search={{ outcome: 'refused' }}>
          {visible(name)}
        </Link>
      ),
      text: `has refused ${counted(refusedDeliveries, 'delivery', 'deliveries')} in 24 h.`,
    });
  return problems;
}
