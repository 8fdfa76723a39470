import { useQueries, useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';

import { queueQuery } from '../../api/models';
import { causes, deliveriesQuery, sourcesQuery, type Delivery, type WebhookSource } from '../../api/sources';
import { visible } from '../../lib/ansi';
import { clock, count, counted } from '../../lib/format';
import { DAY_MS } from '../../lib/times';
import { Icon } from '../../ui/icons';
import { Panel } from '../../ui/page';
import { Failure } from '../../ui/states';
import { useMinute } from '../../ui/time';
import styles from './overview-page.module.css';

/** Sources whose deliveries are looked at. */
const MOST_SOURCES = 10;

interface Problem {
  key: string;
  link: ReactNode;
  text: string;
}

/** Models that start no jobs, and webhook sources with problems. Nothing if there are none. */
export function Attention() {
  const since = new Date(useMinute() - DAY_MS).toISOString();
  const ofModels = useModelProblems();
  const sources = useQuery(sourcesQuery);
  const refused = useQueries({
    queries: (sources.data?.webhookSources ?? [])
      .slice(0, MOST_SOURCES)
      .map(({ id }) => deliveriesQuery(id, 'refused')),
  });
  const unknown = [sources, ...refused].find((query) => query.isLoadingError);
  const further = (sources.data?.webhookSources.length ?? 0) - MOST_SOURCES;
  const problems = [
    ...ofModels,
    ...sourceProblems(
      sources.data?.webhookSources ?? [],
      refused.map(({ data }) => data?.deliveries ?? []),
      since,
    ),
  ];
  if (problems.length === 0 && !unknown && further <= 0) return null;
  return (
    <Panel title="Needs attention">
      {unknown && (
        <div className={styles.pad}>
          <Failure error={unknown.error} onRetry={() => void unknown.refetch()} />
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
      {further > 0 && (
        <p className={styles.none}>
          Refused deliveries of {counted(further, 'further source')} are not listed here.{' '}
          <Link to="/sources">Webhooks</Link>
        </p>
      )}
    </Panel>
  );
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

/** refused: the refused deliveries of each source. */
function sourceProblems(
  sources: readonly WebhookSource[],
  refused: readonly (readonly Delivery[])[],
  since: string,
): Problem[] {
  return sources.flatMap((source, index) => {
    if (!source.enabled) return []; // on purpose
    const link = (
      <Link to="/sources/$id" params={{ id: source.id }}>
        {visible(source.name)}
      </Link>
    );
    const failing = causes(source.conditions.filter((condition) => condition.status === 'False'));
    const recent = (refused[index] ?? []).filter((delivery) => delivery.at >= since).length;
    return [
      ...failing.map((condition) => ({
        key: `${source.id} ${condition.type}`,
        link,
        text: `refuses deliveries: ${visible(condition.message)}`,
      })),
      ...(recent > 0
        ? [
            {
              key: `${source.id} refused`,
              link,
              text: `has refused ${count(recent)} ${recent === 1 ? 'delivery' : 'deliveries'} in 24 h.`,
            },
          ]
        : []),
    ];
  });
}
