import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useState } from 'react';

import { deliveriesQuery, type Delivery, type DeliveryOutcome, type WebhookSource } from '../../api/sources';
import { visible } from '../../lib/ansi';
import { Button } from '../../ui/button';
import { Icon } from '../../ui/icons';
import { Panel } from '../../ui/page';
import { Prose } from '../../ui/prose';
import { Empty, Failure, Loading } from '../../ui/states';
import { Age } from '../../ui/time';
import { deliverySentence, howToSend, OUTCOME_ICONS, OUTCOME_WORDS } from './deliveries';
import styles from './sources-page.module.css';
import { OUTCOMES } from './search';

/** Deliveries that are shown at first. */
const FIRST = 10;

/** The latest deliveries of a source, newest first. */
export function DeliveriesPanel({ source, isRemoving }: { source: WebhookSource; isRemoving: boolean }) {
  const { outcome } = useSearch({ from: '/app/sources/$id' });
  const navigate = useNavigate({ from: '/sources/$id' });
  const show = (chosen: DeliveryOutcome | undefined) => void navigate({ search: chosen ? { outcome: chosen } : {}, replace: true });
  return (
    <Panel title="Latest deliveries" note={(
      <select aria-label="Outcome" className={styles.filter} value={outcome ?? ''} onChange={(event) => show(OUTCOMES.find((each) => each === event.target.value))}>
        <option value="">Any outcome</option>
        {OUTCOMES.map((each) => <option key={each} value={each}>{OUTCOME_WORDS[each]}</option>)}
      </select>
    )}>
      <Deliveries key={outcome} source={source} outcome={outcome} isRemoving={isRemoving} onShowAll={() => show(undefined)} />
    </Panel>
  );
}

interface DeliveriesProps {
  source: WebhookSource;
  outcome: DeliveryOutcome | undefined;
  isRemoving: boolean;
  onShowAll: () => void;
}

function Deliveries({ source, outcome, isRemoving, onShowAll }: DeliveriesProps) {
  const { data, error, refetch } = useQuery({ ...deliveriesQuery(source.id, outcome), enabled: !isRemoving });
  const [isLong, setLong] = useState(false);
  if (!data) return <div className={styles.facts}>{error ? <Failure error={error} onRetry={() => void refetch()} /> : <Loading rows={3} height={44} />}</div>;
  const { deliveries } = data;
  if (deliveries.length === 0 && outcome) {
    return <Empty title="No such delivery" action={<Button onClick={onShowAll}>Show any outcome</Button>}>None of the latest deliveries has the outcome “{OUTCOME_WORDS[outcome]}”.</Empty>;
  }
  if (deliveries.length === 0) return <Empty title="No deliveries so far">{howToSend(source)}</Empty>;
  return (
    <>
      <ul aria-label="Deliveries">
        {(isLong ? deliveries : deliveries.slice(0, FIRST)).map((delivery, index) => <DeliveryLine key={`${delivery.at} ${index}`} delivery={delivery} />)}
      </ul>
      {!isLong && deliveries.length > FIRST && <Button kind="quiet" onClick={() => setLong(true)}>Show all {deliveries.length}</Button>}
    </>
  );
}

function DeliveryLine({ delivery }: { delivery: Delivery }) {
  const { outcome, event, repo, at, jobs } = delivery;
  return (
    <li className={styles.delivery}>
      <span className={`${styles.outcome} ${styles[outcome] ?? ''}`}><Icon name={OUTCOME_ICONS[outcome]} size={14} /> {OUTCOME_WORDS[outcome]}</span>
      {event && <code>{visible(event)}</code>}
      {repo && <span>{visible(repo)}</span>}
      <Age at={at} suffix=" ago" />
      <p>
        <Prose text={visible(deliverySentence(delivery))} />
        {jobs.map((job) => <span key={job}> <Link to="/jobs/$id/activity" params={{ id: job }}><code>{job}</code></Link></span>)}
      </p>
    </li>
  );
}
