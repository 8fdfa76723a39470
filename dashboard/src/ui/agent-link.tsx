import { Link } from '@tanstack/react-router';

import { visible } from '../lib/ansi';

/** The agent of a job, as a link to its page. Jobs know its `triggerName` only, which the page of agents looks up. */
export function AgentLink({ role }: { role: string }) {
  return (
    <Link to="/agents" search={{ role }}>
      {visible(role)}
    </Link>
  );
}
