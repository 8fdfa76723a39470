import { useQuery } from '@tanstack/react-query';

import { reportQuery, type JobDetail } from '../../api/jobs';
import { visible } from '../../lib/ansi';
import { counted, NOTHING } from '../../lib/format';
import { ExternalLink } from '../../ui/external-link';
import { Panel } from '../../ui/page';
import { Failure, Loading } from '../../ui/states';
import { reportParts } from './report';
import styles from './tables.module.css';

/**
 * What the job writes to GitHub: what is published, what was refused and why, and in preview mode what would be
 * written.
 */
export function ReportPanel({ job }: { job: JobDetail }) {
  const { report, published } = job;
  if (report === null) return null;
  const links = [
    ['Comment', published?.commentUrl],
    ['Check', published?.checkUrl],
    ['Review', published?.reviewUrl],
    ['Pull request', published?.pullRequestUrl],
  ] as const;
  return (
    <Panel title="Report to GitHub">
      <dl className={styles.facts}>
        <div>
          <dt>Parts</dt>
          <dd>{visible(reportParts(report))}</dd>
        </div>
        {links.map(
          ([label, url]) =>
            url && (
              <div key={label}>
                <dt>{label}</dt>
                <dd>
                  <ExternalLink url={url}>{visible(url)}</ExternalLink>
                </dd>
              </div>
            ),
        )}
        {published?.refused.map((reason) => (
          <div key={reason}>
            <dt>Refused</dt>
            <dd>{visible(reason)}</dd>
          </div>
        ))}
        {report.mode === 'preview' ? (
          <Preview id={job.id} />
        ) : (
          <div>
            <dt>State</dt>
            <dd>{state(job)}</dd>
          </div>
        )}
      </dl>
    </Panel>
  );
}

function state({ published, status }: JobDetail): string {
  if (published?.isComplete) return 'complete';
  if (status === 'waiting' || status === 'active') return published ? 'published so far' : 'nothing is published yet';
  return 'being published';
}

function Preview({ id }: { id: string }) {
  const { data, error, isLoadingError, refetch } = useQuery(reportQuery(id));
  if (isLoadingError) return <Failure error={error} onRetry={() => void refetch()} />;
  if (data === undefined) return <Loading rows={2} height={24} />;
  const { comment, check, review, pullRequest } = data.preview ?? {};
  const findings = review?.findings.length ?? 0;
  return (
    <>
      {check && (
        <div>
          <dt>Check that would be written</dt>
          <dd>{visible(`${check.name}: ${check.conclusion ?? check.status}, ${check.title}`)}</dd>
        </div>
      )}
      {review && (
        <div>
          <dt>Review that would be written</dt>
          <dd>{`${review.event}, ${counted(findings, 'finding')}`}</dd>
        </div>
      )}
      {pullRequest && (
        <div>
          <dt>Pull request that would be opened</dt>
          <dd>{visible(`${pullRequest.title} (${pullRequest.branch}${pullRequest.draft ? ', draft' : ''})`)}</dd>
        </div>
      )}
      <div>
        <dt>Comment that would be written</dt>
        <dd>
          {comment ? <pre className={styles.preview}>{visible(comment.replace(/<!--.*?-->\n?/g, ''))}</pre> : NOTHING}
        </dd>
      </div>
    </>
  );
}
