import { useQuery } from '@tanstack/react-query';
import { Link, useSearch } from '@tanstack/react-router';
import { lazy, Suspense, useMemo, useState, type ReactNode } from 'react';

import {
  breakdownQuery,
  sumOfCosts,
  timeseriesQuery,
  type BreakdownRow,
  type Field,
  type Metric,
} from '../../api/stats';
import { visible } from '../../lib/ansi';
import { clock, compact, cost, costs, count, counted, latency, NOTHING } from '../../lib/format';
import { DAY_MS, MINUTE_MS } from '../../lib/times';
import { Page, Panel } from '../../ui/page';
import { Empty, Failure, Loading } from '../../ui/states';
import { cell, Table } from '../../ui/table';
import { useMinute } from '../../ui/time';
import { FIELDS, jobsOf, WINDOWS, type JobsSearch, type StatsSearch, type Window } from './search';
import { columns, seriesInWords, total, type Columns } from './series';
import styles from './stats-page.module.css';

const Chart = lazy(() => import('./chart'));

interface Kind {
  metric: Metric;
  title: string;
  kind: 'bars' | 'lines';
  format: (value: number) => string;
  /** The figure for a whole series. Averages have none: their steps count different numbers of jobs. */
  summary?: (values: (number | null)[]) => number;
}

const seconds = (value: number) => latency(value * 1000);

const CHARTS: readonly Kind[] = [
  { metric: 'jobs', title: 'Ended jobs', kind: 'bars', format: compact, summary: total },
  { metric: 'cost', title: 'Cost', kind: 'bars', format: cost, summary: total },
  { metric: 'tokens', title: 'Tokens', kind: 'bars', format: compact, summary: total },
  { metric: 'duration', title: 'Run time, average', kind: 'lines', format: seconds },
  { metric: 'queueWait', title: 'Wait for a slot, average', kind: 'lines', format: seconds },
];

const FIELD_WORDS: Record<Field, string> = { model: 'Model', agentRole: 'Agent', repo: 'Repository', type: 'Type' };
const DAYS: Record<Window, number> = { '24h': 1, '7d': 7, '30d': 30, '90d': 90 };

export function StatsPage() {
  const { window = '7d', by } = useSearch({ from: '/app/stats' });
  const now = useMinute();
  return (
    <Page
      title="Stats"
      actions={
        <Choices label="Time" current={window} options={WINDOWS.map((each) => [each, each, { window: each, by }])} />
      }
    >
      <div className={styles.bar}>
        <span>Split by</span>
        <Choices
          label="Split by"
          current={by ?? ''}
          options={[
            ['', 'Status', { window, by: undefined }],
            ...FIELDS.map((each) => [each, FIELD_WORDS[each], { window, by: each }] as const),
          ]}
        />
      </div>
      <div className={styles.charts}>
        {CHARTS.map((chart) => (
          <ChartPanel key={chart.metric} chart={chart} window={window} by={by} now={now} />
        ))}
      </div>
      <Comparison by={by ?? 'model'} window={window} />
    </Page>
  );
}

type Choice = readonly [
  value: string,
  label: string,
  search: { [Name in keyof StatsSearch]: StatsSearch[Name] | undefined },
];

function Choices({ label, current, options }: { label: string; current: string; options: readonly Choice[] }) {
  return (
    <nav aria-label={label} className={styles.choices}>
      {options.map(([value, text, search]) => (
        <Link
          key={value}
          to="/stats"
          search={Object.fromEntries(Object.entries(search).filter(([, each]) => each !== undefined)) as StatsSearch}
          replace
          resetScroll={false}
          aria-current={value === current ? 'true' : undefined}
          activeProps={{}}
          data-chosen={value === current || undefined}
        >
          {text}
        </Link>
      ))}
    </nav>
  );
}

function ChartPanel({ chart, window, by, now }: { chart: Kind; window: Window; by: Field | undefined; now: number }) {
  const series = useQuery({ ...timeseriesQuery(chart.metric, window, by), refetchInterval: MINUTE_MS });
  const { unknownOf, unknown } = useUnknownCosts(chart, by, DAYS[window]);
  const [point, setPoint] = useState<number | null>(null);
  const shown = useMemo(() => (series.data ? columns(series.data) : undefined), [series.data]);
  const at = point === null ? undefined : shown?.times[point];
  return (
    <section className={styles.panel} aria-label={chart.title}>
      <header>
        <h2>{chart.title}</h2>
        <span className={styles.time}>{at !== undefined && `until ${clock(new Date(at * 1000))}`}</span>
      </header>
      {series.isLoadingError ? (
        <div className={styles.pad}>
          <Failure error={series.error} onRetry={() => void series.refetch()} />
        </div>
      ) : !shown ? (
        <div className={styles.pad}>
          <Loading rows={6} height={28} />
        </div>
      ) : shown.names.length === 0 ? (
        <p className={styles.none}>{unknown > 0 ? 'No cost in this time is known.' : 'No values in this time.'}</p>
      ) : (
        <>
          <Suspense fallback={<div className={styles.chart} style={{ minHeight: 150 }} />}>
            <Chart
              columns={shown}
              kind={chart.kind}
              label={`${chart.title}: ${summaries(shown, chart, by, unknownOf)}`}
              format={chart.format}
              isWhole={chart.format === compact}
              from={(now - DAYS[window] * DAY_MS) / 1000}
              to={now / 1000}
              onPoint={setPoint}
            />
          </Suspense>
          <Legend
            columns={shown}
            chart={chart}
            by={by}
            point={point}
            unknownOf={unknownOf}
            linkOf={(name) => (chart.metric === 'queueWait' ? undefined : jobsOf(by, name, window))}
          />
        </>
      )}
      {unknown > 0 && (
        <p className={styles.unknown}>
          {counted(unknown, 'job')} without a known cost {unknown === 1 ? 'is' : 'are'} missing here.{' '}
          <Link to="/models">Set the prices of the models</Link> to know the cost of later jobs.
        </p>
      )}
    </section>
  );
}

/** The number of jobs of a series whose cost is unknown; undefined until that has been read. */
type UnknownOf = (name: string) => number | undefined;

/** Numbers of jobs whose cost is unknown: by the names of series, and in all. 0 for charts of other figures. */
function useUnknownCosts(
  { metric }: Kind,
  by: Field | undefined,
  days: number,
): { unknownOf: UnknownOf; unknown: number } {
  const { data: rows } = useQuery({ ...breakdownQuery(by ?? 'model', days), enabled: metric === 'cost' });
  if (metric !== 'cost') return { unknownOf: () => 0, unknown: 0 };
  if (!rows) return { unknownOf: () => undefined, unknown: 0 };
  const unknown = sumOfCosts(rows).unknownCosts;
  return { unknownOf: (name) => (by ? (rows.find((row) => row.value === name)?.unknownCosts ?? 0) : unknown), unknown };
}

/**
 * The value of a series at a point, or for the whole time; empty if there is none. unknown: the number of jobs that are
 * missing in the values.
 */
function figure(values: (number | null)[], chart: Kind, point: number | null, unknown: number | undefined): string {
  const value = point === null ? chart.summary?.(values) : (values[point] ?? null);
  if (value === undefined || (point === null && unknown === undefined)) return '';
  if (value === null) return NOTHING;
  return point === null && unknown ? costs({ costUsd: value, unknownCosts: unknown }) : chart.format(value);
}

function summaries(shown: Columns, chart: Kind, by: Field | undefined, unknownOf: UnknownOf): string {
  return shown.names
    .map((name, index) =>
      `${seriesInWords(name, by)} ${figure(shown.values[index] ?? [], chart, null, unknownOf(name))}`.trim(),
    )
    .join(', ');
}

/** linkOf: the filter of the jobs that a series counts, if they can be listed. */
function Legend({
  columns: shown,
  chart,
  by,
  point,
  unknownOf,
  linkOf,
}: {
  columns: Columns;
  chart: Kind;
  by: Field | undefined;
  point: number | null;
  unknownOf: UnknownOf;
  linkOf: (name: string) => JobsSearch | undefined;
}) {
  return (
    <ul className={styles.legend}>
      {shown.names.map((name, index) => {
        const search = linkOf(name);
        const words = visible(seriesInWords(name, by));
        return (
          <li key={name}>
            <span className={styles.swatch} data-colour={swatch(name, index)} />{' '}
            {search ? (
              <Link to="/jobs" search={search} className={styles.seriesName}>
                {words}
              </Link>
            ) : (
              <span className={styles.seriesName}>{words}</span>
            )}{' '}
            <b>{figure(shown.values[index] ?? [], chart, point, unknownOf(name))}</b>
          </li>
        );
      })}
    </ul>
  );
}

/** The class of a swatch; chart.tsx has the same order of colours. */
function swatch(name: string, index: number): string {
  return ['completed', 'failed', 'cancelled'].includes(name) ? name : String(index % 8);
}

function Comparison({ by, window }: { by: Field; window: Window }) {
  const rows = useQuery(breakdownQuery(by, DAYS[window]));
  const word = FIELD_WORDS[by];
  if (rows.isLoadingError) return <Failure error={rows.error} onRetry={() => void rows.refetch()} />;
  if (!rows.data) return <Loading rows={6} height={44} />;
  if (rows.data.length === 0)
    return <Empty title="No job has ended in this time">Choose a longer time, or wait until a job ends.</Empty>;
  return (
    <Panel
      title={`By ${word.toLowerCase()}`}
      note={<span className={styles.time}>ended jobs, the most frequent first</span>}
    >
      <div className={styles.scroller} tabIndex={0} role="region" aria-label={`Table by ${word.toLowerCase()}`}>
        <Table
          label={`By ${word.toLowerCase()}`}
          columns={[
            [word],
            ['Jobs', cell.number],
            ['Failed', cell.number],
            ['Cost', cell.number],
            ['Input', `${cell.number} ${cell.minor}`],
            ['Output', `${cell.number} ${cell.minor}`],
            ['Median', cell.number],
            ['95 %', `${cell.number} ${cell.minor}`],
          ]}
        >
          {rows.data.map((row) => (
            <ComparisonRow
              key={row.value ?? ''}
              row={row}
              search={row.value === null ? undefined : jobsOf(by, row.value, window)}
            />
          ))}
        </Table>
      </div>
    </Panel>
  );
}

/** search: the filter of the row's jobs, if they can be listed. */
function ComparisonRow({ row, search }: { row: BreakdownRow; search: JobsSearch | undefined }) {
  const jobs = row.completed + row.failed + row.cancelled;
  const time = (value: number | null) => (value === null ? NOTHING : seconds(value));
  const share = jobs === 0 ? 0 : Math.round((row.failed / jobs) * 100);
  return (
    <tr>
      <td className={cell.name}>
        {row.value === null ? (
          <span className={styles.time}>none</span>
        ) : (
          <Jobs search={search}>{visible(row.value)}</Jobs>
        )}
      </td>
      <td className={cell.number}>
        <Jobs search={search}>{count(jobs)}</Jobs>
      </td>
      <td className={cell.number}>
        {row.failed === 0 ? (
          '0'
        ) : (
          <span className={styles.failed}>
            <Jobs search={search && { ...search, status: ['failed'] }}>
              {count(row.failed)} ({share} %)
            </Jobs>
          </span>
        )}
      </td>
      <td
        className={cell.number}
        title={
          row.unknownCosts > 0
            ? `${count(row.unknownCosts)} of ${counted(jobs, 'job')} without a known cost`
            : undefined
        }
      >
        {costs(row)}
      </td>
      <td className={`${cell.number} ${cell.minor}`} title={count(row.inputTokens)}>
        {compact(row.inputTokens)}
      </td>
      <td className={`${cell.number} ${cell.minor}`} title={count(row.outputTokens)}>
        {compact(row.outputTokens)}
      </td>
      <td className={cell.number}>{time(row.medianSeconds)}</td>
      <td className={`${cell.number} ${cell.minor}`}>{time(row.p95Seconds)}</td>
    </tr>
  );
}

/** A link to jobs, or its text alone where they cannot be listed. */
function Jobs({ search, children }: { search: JobsSearch | undefined; children: ReactNode }) {
  return search ? (
    <Link to="/jobs" search={search}>
      {children}
    </Link>
  ) : (
    children
  );
}
