import { useQuery } from '@tanstack/react-query';
import { Suspense, useMemo, useRef, useState } from 'react';

import { ApiError } from '../../api/client';
import { hasEnded, resultQuery } from '../../api/jobs';
import { visible, visibleLines } from '../../lib/ansi';
import { parseJson } from '../../lib/json';
import { bytes } from '../../lib/format';
import { Button } from '../../ui/button';
import { Copy } from '../../ui/copy';
import { JsonTree } from '../../ui/json-tree';
import { Empty, Failure, Loading } from '../../ui/states';
import { useIsNear } from '../../ui/use-is-near';
import { Markdown } from './markdown';
import styles from './result-tab.module.css';
import { PART, partsOf } from './text-parts';
import { useJob } from './use-job';

interface Section {
  title: string;
  level: number;
  pageStart: number;
  pageEnd: number;
  output: string;
}

export function ResultTab() {
  const job = useJob();
  return (
    <>
      {job.resultData !== null && job.resultData !== undefined && (
        <section className={`${styles.page} ${styles.above}`} aria-label="Value">
          <h2>Value</h2>
          <div className={styles.bar}>
            <Copy text={() => JSON.stringify(job.resultData, null, 2)} label="Copy the value" />
          </div>
          <div className={styles.tree}>
            <JsonTree value={job.resultData} />
          </div>
        </section>
      )}
      {job.resultSchema !== null && (
        <details className={`${styles.page} ${styles.above}`}>
          <summary>Schema of the result</summary>
          <div className={styles.tree}>
            <JsonTree value={job.resultSchema} />
          </div>
        </details>
      )}
      <Result />
    </>
  );
}

function Result() {
  const job = useJob();
  const {
    data: result,
    error,
    refetch,
  } = useQuery({ ...resultQuery(job.id), enabled: job.status === 'completed', retry: false });
  if (error instanceof ApiError && error.status === 404)
    return <Empty title="No result">The result was deleted with the output of the job.</Empty>;
  if (error)
    return (
      <div className={styles.page}>
        <Failure error={error} onRetry={() => void refetch()} />
      </div>
    );
  if (job.status === 'completed' && result === undefined)
    return (
      <div className={styles.page}>
        <Loading rows={5} height={24} />
      </div>
    );
  if (result === null || result === undefined) {
    return (
      <Empty title="No result">
        {!hasEnded(job.status)
          ? 'The result is available once the job has completed.'
          : job.status === 'completed'
            ? 'The agent returned nothing.'
            : 'The job did not complete.'}
      </Empty>
    );
  }
  return <Answer result={result} value={job.resultData} />;
}

/** value: the checked value of the result, which is shown already. */
function Answer({ result, value }: { result: unknown; value: unknown }) {
  const isShown = useMemo(() => isJsonOf(result, value), [result, value]);
  if (isShown) return null;
  const sections = sectionsOf(result);
  return (
    <div className={styles.page}>
      <div className={styles.bar}>
        <Copy
          text={() => (typeof result === 'string' ? result : JSON.stringify(result, null, 2))}
          label="Copy the result"
        />
      </div>
      <Suspense fallback={<Loading rows={5} height={24} />}>
        {typeof result === 'string' ? (
          <div className={styles.prose}>
            <Text text={result} />
          </div>
        ) : sections ? (
          <Sections sections={sections} />
        ) : (
          <div className={styles.tree}>
            <JsonTree value={result} />
          </div>
        )}
      </Suspense>
    </div>
  );
}

/**
 * A text as Markdown. A long one is plain text, in parts: the browser would not answer while it reads megabytes of
 * Markdown.
 */
function Text({ text }: { text: string }) {
  const [shown, setShown] = useState(1);
  const parts = useMemo(() => partsOf(text), [text]);
  if (parts.length === 1) return <Markdown text={text} />;
  return (
    <>
      <p className={styles.pages}>This text has {bytes(text.length)}. It is shown as plain text, in parts.</p>
      {parts.slice(0, shown).map((part, index) => (
        <pre key={index} className={styles.plain}>
          {visibleLines(part)}
        </pre>
      ))}
      {shown < parts.length && (
        <Button kind="quiet" onClick={() => setShown(shown + 1)}>
          Show the next {bytes(parts[shown]?.length ?? 0)} of {bytes(text.length)}
        </Button>
      )}
    </>
  );
}

/** Whether a result is nothing but the JSON of the checked value, which is shown already. */
function isJsonOf(result: unknown, value: unknown): boolean {
  if (value === null || value === undefined) return false;
  const parsed = typeof result === 'string' ? parseJson(result) : { value: result };
  return 'value' in parsed && JSON.stringify(parsed.value) === JSON.stringify(value);
}

function Sections({ sections }: { sections: Section[] }) {
  const isLong = sections.reduce((sum, section) => sum + section.output.length, 0) > PART;
  return (
    <div className={styles.sections}>
      <nav aria-label="Contents">
        <ul>
          {sections.map((section, index) => (
            <li key={index} style={{ paddingInlineStart: (section.level - 1) * 12 }}>
              <a href={`#section-${index}`}>{visible(section.title)}</a>
            </li>
          ))}
        </ul>
      </nav>
      <div className={styles.prose}>
        {sections.map((section, index) => (
          <SectionText key={index} id={`section-${index}`} section={section} isLater={isLong} />
        ))}
      </div>
    </div>
  );
}

/** A section. isLater: its text is read once it is near the screen. */
function SectionText({ id, section, isLater }: { id: string; section: Section; isLater: boolean }) {
  const ref = useRef<HTMLElement>(null);
  const isNear = useIsNear(ref, true);
  return (
    <section ref={ref} id={id}>
      <h2>{visible(section.title)}</h2>
      <p className={styles.pages}>
        {section.pageStart === section.pageEnd
          ? `Page ${section.pageStart}`
          : `Pages ${section.pageStart} to ${section.pageEnd}`}
      </p>
      {isNear || !isLater ? <Text text={section.output} /> : <div className={styles.later} />}
    </section>
  );
}

/** The sections of a PDF, if the result has them. */
function sectionsOf(result: unknown): Section[] | undefined {
  if (typeof result !== 'object' || result === null || !('sections' in result) || !Array.isArray(result.sections))
    return undefined;
  const sections: unknown[] = result.sections;
  return sections.length > 0 && sections.every(isSection) ? sections : undefined;
}

function isSection(value: unknown): value is Section {
  if (typeof value !== 'object' || value === null) return false;
  const { title, level, pageStart, pageEnd, output } = value as Partial<Record<keyof Section, unknown>>;
  return (
    typeof title === 'string' &&
    typeof output === 'string' &&
    [level, pageStart, pageEnd].every((each) => typeof each === 'number')
  );
}
