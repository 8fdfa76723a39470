/** A chart of series over time. The only module that knows the charting library. */

import 'uplot/dist/uPlot.min.css';

import { useEffect, useRef, useState } from 'react';
import uPlot from 'uplot';

import { dayOfYear } from '../../lib/format';
import { useMedia } from '../../ui/use-media';
import { useTheme } from '../../ui/theme';
import styles from './stats-page.module.css';
import { stacked, type Columns } from './series';

const HEIGHT = 150;
const STATUS_COLOURS: Record<string, string> = {
  completed: '--completed',
  failed: '--failed',
  cancelled: '--cancelled',
};
const COLOURS = ['--active', '--ansi-5', '--ansi-3', '--ansi-6', '--accent', '--ansi-2', '--ansi-1', '--text-faint'];

/** Steps between the ticks of an axis of counts. */
const WHOLE = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

export function colourOf(name: string, index: number): string {
  return STATUS_COLOURS[name] ?? COLOURS[index % COLOURS.length] ?? '--active';
}

interface ChartProps {
  columns: Columns;
  kind: 'bars' | 'lines';
  label: string;
  format: (value: number) => string;
  /** The values are counts, so that the axis has whole numbers only. */
  isWhole: boolean;
  /** The first and the last time of the axis, in Unix seconds. */
  from: number;
  to: number;
  /** Called with the position under the pointer. */
  onPoint: (index: number | null) => void;
}

export default function Chart({ columns, kind, label, format, isWhole, from, to, onPoint }: ChartProps) {
  const element = useRef<HTMLDivElement>(null);
  const theme = useTheme();
  const isDark = useMedia('(prefers-color-scheme: dark)');
  const [width, setWidth] = useState(0);
  const latest = useRef({ format, onPoint });
  useEffect(() => {
    latest.current = { format, onPoint };
  });
  useEffect(() => {
    if (!element.current) return;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry?.contentRect.width ?? 0)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (!element.current || width === 0) return;
    const colour = colours(element.current);
    const axis = {
      stroke: colour('--text-faint'),
      grid: { stroke: colour('--line'), width: 1 },
      ticks: { show: false },
      font: '11px system-ui',
    };
    // The last step ends later, and its values count for the axis too
    const end = Math.max(to, columns.times.at(-1) ?? to);
    const bars = uPlot.paths.bars?.({ size: [0.75, 40], align: -1 });
    const chart = new uPlot(
      {
        width,
        height: HEIGHT,
        padding: [8, 18, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { show: kind === 'lines' }, drag: { x: false, y: false } },
        scales: {
          x: { time: true, range: () => [from, end] },
          y: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] },
        },
        axes: [
          {
            ...axis,
            grid: { show: false },
            size: 22,
            space: 70,
            values: (_, ticks) => ticks.map((tick, index) => timeLabel(tick, ticks[index - 1], to - from)),
          },
          {
            ...axis,
            size: 52,
            space: 34,
            ...(isWhole && { incrs: WHOLE }),
            values: (_, ticks) => ticks.map((tick) => latest.current.format(tick)),
          },
        ],
        series: [
          {},
          ...columns.names.map((name, index) => {
            const stroke = colour(colourOf(name, index));
            return kind === 'bars' && bars
              ? { stroke, fill: stroke, width: 0, paths: bars, points: { show: false } }
              : { stroke, width: 1.6, spanGaps: true, points: { size: 4 } };
          }),
        ],
        hooks: { setCursor: [(plot) => latest.current.onPoint(plot.cursor.idx ?? null)] },
      },
      [columns.times, ...(kind === 'bars' ? stacked(columns.values) : columns.values)],
      element.current,
    );
    return () => chart.destroy();
  }, [columns, kind, isWhole, width, theme, isDark, from, to]);
  return <div ref={element} role="img" aria-label={label} className={styles.chart} style={{ minHeight: HEIGHT }} />;
}

const DAY = 86_400;

/** The label of a tick: a time of day for a day, else a date, and nothing where it would repeat the one before. */
function timeLabel(tick: number, before: number | undefined, length: number): string {
  const text = (time: number) => {
    const date = new Date(time * 1000);
    return length <= DAY
      ? `${String(date.getHours()).padStart(2, '0')}:${String(date.getMinutes()).padStart(2, '0')}`
      : dayOfYear(date);
  };
  return before !== undefined && text(before) === text(tick) ? '' : text(tick);
}

/** A function that returns the present colour of a token. */
function colours(element: HTMLElement): (token: string) => string {
  const probe = document.createElement('span');
  element.append(probe);
  const read = (token: string) => {
    probe.style.color = `var(${token})`;
    return getComputedStyle(probe).color;
  };
  const known = Object.fromEntries(
    [...COLOURS, ...Object.values(STATUS_COLOURS), '--line'].map((token) => [token, read(token)]),
  );
  probe.remove();
  return (token) => known[token] ?? 'gray';
}
