import { Link } from '@tanstack/react-router';

import type { Agent, Trigger } from '../../api/agents';
import { visible } from '../../lib/ansi';
import { Icon } from '../../ui/icons';
import styles from './trigger-words.module.css';
import { conditionInWords, eventsInWords, filterInWords } from './words';

/** A trigger as a sentence, and the agent that follows. agents: undefined until they are known. */
export function TriggerWords({ trigger, agents }: { trigger: Trigger; agents: readonly Agent[] | undefined }) {
  const filters = Object.entries(trigger.filters);
  const { next } = trigger;
  const follower = next && agents?.find((agent) => agent.triggerName === next.agentTriggerName);
  return (
    <p className={styles.trigger} data-off={!trigger.enabled || undefined}>
      <Icon name="hook" />
      <span>
        {visible(eventsInWords(trigger))}
        {filters.length > 0 && (
          <span className={styles.filters}>
            , if {visible(filters.map(([path, value]) => filterInWords(path, value)).join(' and '))}
          </span>
        )}
        {!trigger.enabled && <span className={styles.off}> (off)</span>}
        {next && (
          <span className={styles.next}>
            {' '}
            <span aria-hidden="true">→</span> then{' '}
            {follower ? (
              <Link to="/agents/$id/triggers" params={{ id: follower.id }}>
                {visible(follower.name)}
              </Link>
            ) : (
              <>
                {visible(next.agentTriggerName)}
                {agents && ' (there is no such agent)'}
              </>
            )}{' '}
            {conditionInWords(next)}
          </span>
        )}
      </span>
    </p>
  );
}
