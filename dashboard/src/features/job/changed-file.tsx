import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { memo, useRef, useState } from 'react';

import { visible } from '../../lib/ansi';
import { count } from '../../lib/format';
import { Button } from '../../ui/button';
import { Failure } from '../../ui/states';
import { useIsNear } from '../../ui/use-is-near';
import styles from './changes-tab.module.css';
import { isFolded, pairs, type PatchFile, type PatchLine } from './patch';
import type { PatchReader } from './patch-reader';

const LINE_HEIGHT = 20;
/** Chunks of lines that a file begins with: more would exceed the height of an element. */
const FIRST_CHUNKS = 500;

/** The id of a file's section. */
export function fileId(path: string): string {
  return `file-${encodeURIComponent(path)}`;
}

/** The lines that were added and removed; nothing for none. */
export function Numbers({ added, removed }: { added: number; removed: number }) {
  return (
    <span className={styles.sums}>
      {added > 0 && (
        <span className={styles.plus} aria-label={`${count(added)} lines added`} role="img">
          +{count(added)}
        </span>
      )}
      {added > 0 && removed > 0 && ' '}
      {removed > 0 && (
        <span className={styles.minus} aria-label={`${count(removed)} lines removed`} role="img">
          −{count(removed)}
        </span>
      )}
    </span>
  );
}

const CHANGE_WORDS = { added: 'new', deleted: 'deleted', renamed: 'renamed', modified: '' } as const;

interface ChangedFileProps {
  reader: PatchReader;
  /** That of the patch. Lines of an earlier one are shown until those of this one are read. */
  version: number;
  index: number;
  file: PatchFile;
  isSplit: boolean;
  isViewed: boolean;
  onViewed: (path: string) => void;
}

export const ChangedFile = memo(function ChangedFile({
  reader,
  version,
  index,
  file,
  isSplit,
  isViewed,
  onViewed,
}: ChangedFileProps) {
  const [isShown, setShown] = useState(!isFolded(file));
  const word = CHANGE_WORDS[file.change];
  const path = visible(file.path);
  return (
    <section id={fileId(file.path)} aria-label={path} className={styles.file}>
      <header>
        <h2>
          {file.oldPath && <span className={styles.faint}>{visible(file.oldPath)} → </span>}
          {path}
        </h2>
        {word && <span className={styles.word}>{word}</span>}
        {file.note && <span className={styles.word}>{file.note}</span>}
        <Numbers added={file.added} removed={file.removed} />
        <label className={styles.viewed}>
          <input type="checkbox" checked={isViewed} onChange={() => onViewed(file.path)} /> Viewed
        </label>
      </header>
      {!isViewed &&
        (file.isBinary ? (
          <p className={styles.folded}>A binary file.</p>
        ) : file.lines === 0 ? (
          <p className={styles.folded}>{file.change === 'renamed' ? 'Renamed without changes.' : 'No line changed.'}</p>
        ) : isShown ? (
          <Lines
            reader={reader}
            version={version}
            index={index}
            file={file}
            isSplit={isSplit && file.added > 0 && file.removed > 0}
          />
        ) : (
          <p className={styles.folded}>
            A large or generated file.{' '}
            <Button kind="quiet" onClick={() => setShown(true)}>
              Show {count(file.added + file.removed)} changed lines
            </Button>
          </p>
        ))}
    </section>
  );
});

/** The lines of a file. isSplit: in two columns, none of which is empty. */
function Lines({
  reader,
  version,
  index,
  file,
  isSplit,
}: {
  reader: PatchReader;
  version: number;
  index: number;
  file: PatchFile;
  isSplit: boolean;
}) {
  const scroller = useRef<HTMLDivElement>(null);
  const isNear = useIsNear(scroller);
  const [limit, setLimit] = useState(FIRST_CHUNKS);
  const {
    data: chunks,
    error,
    refetch,
  } = useQuery({
    queryKey: ['patch', reader.url, 'chunks', version, index],
    queryFn: () => reader.chunks(index),
    enabled: isNear,
    staleTime: Infinity,
    placeholderData: keepPreviousData,
  });
  return (
    <div
      ref={scroller}
      className={styles.scroller}
      tabIndex={0}
      role="region"
      aria-label={`Changes of ${visible(file.path)}`}
    >
      {error ? (
        <Failure error={error} onRetry={() => void refetch()} />
      ) : (
        <div className={isSplit ? styles.split : styles.unified}>
          {chunks ? (
            chunks
              .slice(0, limit)
              .map((lines, chunk) => (
                <ChunkLines
                  key={chunk}
                  reader={reader}
                  version={version}
                  index={index}
                  chunk={chunk}
                  lines={lines}
                  isSplit={isSplit}
                />
              ))
          ) : (
            <div style={{ height: file.lines * LINE_HEIGHT }} />
          )}
        </div>
      )}
      {chunks && chunks.length > limit && (
        <Button kind="quiet" onClick={() => setLimit(limit + FIRST_CHUNKS)}>
          Show more of {count(file.lines)} lines
        </Button>
      )}
    </div>
  );
}

/**
 * Some lines, which are drawn only near the window. Lines in two columns wrap, so their height is known only once they
 * are drawn.
 */
function ChunkLines({
  reader,
  version,
  index,
  chunk,
  lines,
  isSplit,
}: {
  reader: PatchReader;
  version: number;
  index: number;
  chunk: number;
  lines: number;
  isSplit: boolean;
}) {
  const place = useRef<HTMLDivElement>(null);
  const isNear = useIsNear(place, isSplit);
  const { data } = useQuery({
    queryKey: ['patch', reader.url, 'lines', version, index, chunk],
    queryFn: () => reader.lines(index, chunk),
    enabled: isNear,
    staleTime: Infinity,
    placeholderData: keepPreviousData,
    gcTime: 5_000,
    structuralSharing: false,
  });
  const isDrawn = isNear && data !== undefined;
  return (
    <div ref={place} style={isDrawn && isSplit ? undefined : { height: lines * LINE_HEIGHT }}>
      {isDrawn && (
        <table>
          <tbody>
            {isSplit
              ? pairs(data).map(([left, right], row) => <Pair key={row} left={left} right={right} />)
              : data.map((line, row) => <Line key={row} line={line} />)}
          </tbody>
        </table>
      )}
    </div>
  );
}

const MARKS = { added: '+', removed: '−', context: ' ', note: ' ', hunk: '' } as const;

function Line({ line }: { line: PatchLine }) {
  if (line.kind === 'hunk')
    return (
      <tr className={styles.hunk}>
        <td colSpan={3}>{visible(line.text)}</td>
      </tr>
    );
  return (
    <tr className={styles[line.kind]}>
      <td className={styles.number}>{line.before}</td>
      <td className={styles.number}>{line.after}</td>
      <td className={styles.code}>
        <span className={styles.mark}>{MARKS[line.kind]}</span>
        {visible(line.text)}
      </td>
    </tr>
  );
}

function Pair({ left, right }: { left: PatchLine | undefined; right: PatchLine | undefined }) {
  if (left?.kind === 'hunk')
    return (
      <tr className={styles.hunk}>
        <td colSpan={4}>{visible(left.text)}</td>
      </tr>
    );
  return (
    <tr>
      <Half line={left} number={left?.before} />
      <Half line={right} number={right?.after} />
    </tr>
  );
}

function Half({ line, number }: { line: PatchLine | undefined; number: number | undefined }) {
  const kind = line ? styles[line.kind] : styles.nothing;
  return (
    <>
      <td className={`${styles.number} ${kind}`}>{number}</td>
      <td className={`${styles.code} ${kind}`}>
        {line && (
          <>
            <span className={styles.mark}>{MARKS[line.kind]}</span>
            {visible(line.text)}
          </>
        )}
      </td>
    </>
  );
}
