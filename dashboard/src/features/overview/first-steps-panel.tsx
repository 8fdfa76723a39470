import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useEffect, useState, type ReactNode } from 'react';

import { facetsQuery } from '../../api/jobs';
import { systemQuery, type System } from '../../api/keys';
import { useLive } from '../../api/live';
import { readStored, writeStored } from '../../lib/storage';
import { useMayChange } from '../../ui/access';
import { Button } from '../../ui/button';
import { Copy } from '../../ui/copy';
import { Icon } from '../../ui/icons';
import { Panel } from '../../ui/page';
import pageStyles from '../../ui/page.module.css';
import { firstSteps, type StepName } from './first-steps';

const HIDDEN = 'labrats.first-steps';

/** Whether this browser shows the first steps: until they are done or hidden, to those who may take them. */
export function useShowsFirstSteps(): [boolean, () => void] {
  const [isHidden, setHidden] = useState(() => readStored('localStorage', HIDDEN) !== null);
  const mayChange = useMayChange();
  const hide = () => {
    writeStored('localStorage', HIDDEN, 'hidden');
    setHidden(true);
  };
  return [mayChange && !isHidden, hide];
}

const STEPS: Readonly<Record<StepName, [title: string, help: ReactNode]>> = {
  agent: ['Connect an agent', <Command text="labrats connect claude" />],
  job: ['Run a first job', <Link to="/jobs/new">New job</Link>],
  github: [
    'Connect GitHub',
    <Link to="/sources" search={{ connect: true }}>
      Connect
    </Link>,
  ],
  trigger: [
    'Let an event start an agent',
    <>
      label an issue with <code>ai-implement</code>
    </>,
  ],
};

/** The first steps of a new engine. Nothing once all are done. */
export function FirstSteps({ onHide }: { onHide: () => void }) {
  const { data: system } = useQuery(systemQuery);
  const { data: facets } = useQuery(facetsQuery({}));
  useLive([systemQuery]);
  // A replica of an earlier version has no `github`.
  const isKnown = system && facets && (system.github as System['github'] | undefined);
  const steps = isKnown ? firstSteps(system, facets) : [];
  const isDone = steps.length > 0 && steps.every(([, done]) => done);
  useEffect(() => {
    if (isDone) writeStored('localStorage', HIDDEN, 'done');
  }, [isDone]);
  if (steps.length === 0 || isDone) return null;
  return (
    <Panel
      title="First steps"
      note={
        <Button kind="quiet" onClick={onHide}>
          Hide
        </Button>
      }
    >
      <ol className={pageStyles.providers}>
        {steps.map(([name, done]) => (
          <li key={name}>
            <Icon name={done ? 'check' : 'chevronRight'} size={14} />
            <div>
              <strong>{STEPS[name][0]}</strong>: {done ? 'done' : STEPS[name][1]}
            </div>
          </li>
        ))}
      </ol>
    </Panel>
  );
}

function Command({ text }: { text: string }) {
  return (
    <>
      <code>{text}</code> <Copy text={text} name="Copy the command" />
    </>
  );
}
