import { useQuery } from '@tanstack/react-query';
import { useId, useState } from 'react';

import { sendEvent, testEvent, type StartedJob } from '../../api/incoming-events';
import { visible } from '../../lib/ansi';
import { randomKey } from '../../lib/random-key';
import { Confirm } from '../../ui/confirm';
import { Failure, Loading } from '../../ui/states';
import type { TestBody } from './test-draft';

/** Ask before an event is sent: it may start several agents. */
export function SendDialog({
  event: { source, event, payload, webhookSource },
  onDone,
  onClose,
}: {
  event: TestBody;
  onDone: (jobs: StartedJob[]) => void;
  onClose: () => void;
}) {
  const [key] = useState(() => randomKey());
  const sent = { source, event, payload };
  const id = useId();
  const all = useQuery({
    queryKey: ['tested-event', id, key],
    queryFn: ({ signal }) => testEvent(sent, signal),
    gcTime: 0,
  });
  const started = all.data?.agents.filter((each) => each.starts || each.refused !== null).map((each) => each.agent);
  return (
    <Confirm
      title="Run for real?"
      action="Send the event"
      onClose={onClose}
      run={() => sendEvent(sent, key)}
      onDone={(answer) => onDone(answer.jobs)}
    >
      <p>
        The event is sent to all agents, not only to this one.
        {webhookSource &&
          ` The conditions and settings of ${webhookSource} do not apply, since it did not receive the event.`}
      </p>
      {all.isLoadingError ? (
        <Failure error={all.error} onRetry={() => void all.refetch()} />
      ) : !started ? (
        <Loading rows={2} />
      ) : started.length === 0 ? (
        <p>It starts no agent.</p>
      ) : (
        <>
          <p>It starts:</p>
          <ul>
            {started.map((name) => (
              <li key={name}>{visible(name)}</li>
            ))}
          </ul>
        </>
      )}
    </Confirm>
  );
}
