import { Link } from '@tanstack/react-router';
import { memo } from 'react';

import { useActivity } from '../../api/activities';
import type { JobItem, QueuePlace } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { cost, NOTHING } from '../../lib/format';
import { Changing } from '../../ui/access';
import { AgentLink } from '../../ui/agent-link';
import { StatusBadge, statusNote } from '../../ui/status';
import { Age, Span } from '../../ui/time';
import { waitingNote } from '../../ui/waiting';
import styles from './jobs-page.module.css';

interface JobRowProps {
  job: JobItem;
  /** Where a waiting job stands, once that is known. */
  place: QueuePlace | undefined;
  rowIndex: number;
  isFocused: boolean;
  isSelected: boolean;
  onSelect: (id: string, extend: boolean) => void;
}

export const JobRow = memo(
  function JobRow({ job, place, rowIndex, isFocused, isSelected, onSelect }: JobRowProps) {
    const title = visible(job.title ?? job.name);
    return (
      <tr
        aria-rowindex={rowIndex}
        className={styles.row}
        data-focused={isFocused || undefined}
        data-selected={isSelected || undefined}
      >
        <td className={styles.check}>
          <Changing>
            <label>
              <input
                type="checkbox"
                checked={isSelected}
                aria-label={`Select ${title}`}
                onChange={() => undefined}
                onClick={(event) => onSelect(job.id, event.shiftKey)}
              />
            </label>
          </Changing>
        </td>
        <td className={styles.statusColumn}>
          <span title={job.failedReason ? visible(job.failedReason) : undefined}>
            {job.status === 'failed' && <span className="visually-hidden">Failed: </span>}
            <StatusBadge status={job.status} note={statusNote(job)} />
          </span>
        </td>
        <TitleCell job={job} place={place} title={title} />
        <td className={styles.agentColumn} title={job.agentRole ? visible(job.agentRole) : undefined}>
          {job.agentRole ? <AgentLink role={job.agentRole} /> : NOTHING}
        </td>
        <td className={styles.repoColumn} title={job.repo ? visible(job.repo) : undefined}>
          {job.repo ? visible(job.repo) : NOTHING}
        </td>
        <td className={styles.modelColumn} title={visible(`${job.provider}/${job.model}`)}>
          {visible(job.model)}
        </td>
        <td className={styles.numberColumn}>
          <Span from={job.status === 'waiting' ? null : job.processedAt} to={job.finishedAt} />
        </td>
        <td className={`${styles.numberColumn} ${styles.costColumn}`}>{costOf(job)}</td>
        <td className={styles.ageColumn}>
          <Age at={job.createdAt} />
        </td>
      </tr>
    );
  },
  (before, after) =>
    before.job === after.job &&
    before.place === after.place &&
    before.rowIndex === after.rowIndex &&
    before.isFocused === after.isFocused &&
    before.isSelected === after.isSelected,
);

/**
 * The title, and below it what the agent does now or why the job waits; on phones, which have no columns, else agent and
 * model.
 */
function TitleCell({ job, place, title }: { job: JobItem; place: QueuePlace | undefined; title: string }) {
  const activity = useActivity(job);
  const note = activity === null ? job.status === 'waiting' && place && waitingNote(job, place) : visible(activity);
  const names = [job.agentRole ?? '', job.model].filter(Boolean).map(visible).join(' · ');
  return (
    <td className={styles.titleCell} data-noted={note ? true : undefined}>
      <Link to="/jobs/$id/activity" params={{ id: job.id }} title={title}>
        {title}
      </Link>
      {note ? (
        <span className={styles.note} title={note}>
          {note}
        </span>
      ) : (
        <span className={styles.names}>{names}</span>
      )}
    </td>
  );
}

/** The cost of a job; that of a running attempt is not known here. */
function costOf({ status, usage }: JobItem): string {
  return status === 'waiting' || (status === 'active' && !usage.costUsd) ? NOTHING : cost(usage.costUsd);
}
