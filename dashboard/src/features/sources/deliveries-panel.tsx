import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useState } from 'react';

import { agentsQuery } from '../../api/jobs';
import { deliveriesQuery, type Delivery, type DeliveryOutcome, type WebhookSource } from '../../api/sources';
import { visible } from '../../lib/ansi';
import { Changing } from '../../ui/access';
import { Button, buttonClass } from '../../ui/button';
import { Icon } from '../../ui/icons';
import { Menu, MenuItem } from '../../ui/menu';
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
  const show = (chosen: DeliveryOutcome | undefined) =>
    void navigate({ search: chosen ? { outcome: chosen } : {}, replace: true });
  return (
    <Panel
      title="Latest deliveries"
      note={
        <select
          aria-label="Outcome"
          className={styles.filter}
          value={outcome ?? ''}
          onChange={(event) => show(OUTCOMES.find((each) => each === event.target.value))}
        >
          <option value="">Any outcome</option>
          {OUTCOMES.map((each) => (
            <option key={each} value={each}>
              {OUTCOME_WORDS[each]}
            </option>
          ))}
        </select>
      }
    >
      <Deliveries
        key={outcome}
        source={source}
        outcome={outcome}
        isRemoving={isRemoving}
        onShowAll={() => show(undefined)}
      />
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
  if (!data)
    return (
      <div className={styles.facts}>
        {error ? <Failure error={error} onRetry={() => void refetch()} /> : <Loading rows={3} height={44} />}
      </div>
    );
  const { deliveries } = data;
  if (deliveries.length === 0 && outcome) {
    return (
      <Empty title="No such delivery" action={<Button onClick={onShowAll}>Show any outcome</Button>}>
        None of the latest deliveries has the outcome “{OUTCOME_WORDS[outcome]}”.
      </Empty>
    );
  }
  if (deliveries.length === 0) return <Empty title="No deliveries so far">{howToSend(source)}</Empty>;
  return (
    <>
      <ul aria-label="Deliveries">
        {(isLong ? deliveries : deliveries.slice(0, FIRST)).map((delivery) => (
          <DeliveryLine key={delivery.id} delivery={delivery} source={source.name} />
        ))}
      </ul>
      {!isLong && deliveries.length > FIRST && (
        <Button kind="quiet" onClick={() => setLong(true)}>
          Show all {deliveries.length}
        </Button>
      )}
    </>
  );
}

function DeliveryLine({ delivery, source }: { delivery: Delivery; source: string }) {
  const { outcome, event, repo, at, jobs } = delivery;
  return (
    <li className={styles.delivery}>
      <span className={`${styles.outcome} ${styles[outcome] ?? ''}`}>
        <Icon name={OUTCOME_ICONS[outcome]} size={14} /> {OUTCOME_WORDS[outcome]}
      </span>
      {event && <code>{visible(event)}</code>}
      {repo && <span>{visible(repo)}</span>}
      <Age at={at} suffix=" ago" />
      <p>
        <Prose text={visible(deliverySentence(delivery))} />
        {jobs.map((job) => (
          <span key={job}>
            {' '}
            <Link to="/jobs/$id/activity" params={{ id: job }}>
              <code>{job}</code>
            </Link>
          </span>
        ))}
      </p>
      {delivery.hasPayload && (
        <Changing>
          <TestMenu delivery={`${source}/${delivery.id}`} />
        </Changing>
      )}
    </li>
  );
}

/** The agents that can be tested with the event of a delivery. delivery: as in the URL of the test. */
function TestMenu({ delivery }: { delivery: string }) {
  const navigate = useNavigate();
  const { data } = useQuery(agentsQuery);
  if (!data || data.agents.length === 0) return null;
  return (
    <Menu
      label="Test an agent with this event"
      button={
        <>
          Test an agent <Icon name="chevronDown" size={14} />
        </>
      }
      className={buttonClass('quiet')}
    >
      {() =>
        data.agents.map((agent) => (
          <MenuItem
            key={agent.id}
            onSelect={() => void navigate({ to: '/agents/$id/test', params: { id: agent.id }, search: { delivery } })}
          >
            {visible(agent.name)}
          </MenuItem>
        ))
      }
    </Menu>
  );
}
