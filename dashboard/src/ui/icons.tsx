/** Icons of one weight, 16 by 16. They are decoration: a word stands beside each, or labels its button. */

const PATHS = {
  overview: 'M2.5 2.5h4.5v5h-4.5zM9 2.5h4.5v3H9zM9 8.5h4.5v5H9zM2.5 10.5h4.5v3h-4.5z',
  jobs: 'M2.5 4h11M2.5 8h11M2.5 12h7',
  plus: 'M8 3v10M3 8h10',
  search: 'M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM10.3 10.3l3.2 3.2',
  close: 'M4 4l8 8M12 4l-8 8',
  check: 'M3.5 8.5l3 3 6-7',
  chevronRight: 'M6.5 4l4 4-4 4',
  chevronDown: 'M4 6.5l4 4 4-4',
  chevronUp: 'M4 9.5l4-4 4 4',
  chevronLeft: 'M9.5 4l-4 4 4 4',
  more: 'M3.5 8h.01M8 8h.01M12.5 8h.01',
  copy: 'M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z',
  external: 'M9 2.5h4.5V7M13.5 2.5L7.5 8.5M6.5 3.5h-4v10h10v-4',
  arrowDown: 'M8 3v10M4 9l4 4 4-4',
  arrowUp: 'M8 13V3M4 7l4-4 4 4',
  download: 'M8 2.5v8M4.5 7.5L8 11l3.5-3.5M2.5 13.5h11',
  user: 'M8 8a2.7 2.7 0 1 0 0-5.4A2.7 2.7 0 0 0 8 8zM2.8 13.5c.6-2.3 2.6-3.5 5.2-3.5s4.6 1.2 5.2 3.5',
  sun: 'M8 10.8a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6zM8 1.5v1M8 13.5v1M1.5 8h1M13.5 8h1M3.4 3.4l.7.7M11.9 11.9l.7.7M12.6 3.4l-.7.7M4.1 11.9l-.7.7',
  keyboard: 'M1.5 4.5h13v7h-13zM4 7h.01M6.5 7h.01M9 7h.01M11.5 7h.01M5 9.5h6',
  logout: 'M6.5 2.5h-4v11h4M10 5l3 3-3 3M13 8H6',
  agent: 'M8 2v2M3.5 4.5h9v8h-9zM6 8v1M10 8v1M1.5 8v2M14.5 8v2',
  repo: 'M3.5 13.5v-10a1 1 0 0 1 1-1h8v9h-8a1 1 0 0 0-1 1 1 1 0 0 0 1 1h8',
  chip: 'M4.5 4.5h7v7h-7zM6.5 2v2.5M9.5 2v2.5M6.5 11.5V14M9.5 11.5V14M2 6.5h2.5M2 9.5h2.5M11.5 6.5H14M11.5 9.5H14',
  clock: 'M8 13.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM8 5v3.2l2 1.3',
  tool: 'M9.7 6.3a3.2 3.2 0 0 1 4.1-3l-1.9 1.9.9.9 1.9-1.8a3.2 3.2 0 0 1-4.2 4l-4.8 5a1.5 1.5 0 0 1-2.1-2.1z',
  file: 'M4 2.5h5l3 3v8H4zM9 2.5v3h3',
  warning: 'M8 2.5l6 11H2zM8 6.5v3.2M8 11.7h.01',
  play: 'M5 3l8 5-8 5z',
  pause: 'M5.5 3.5v9M10.5 3.5v9',
  pencil: 'M10.5 3l2.5 2.5-7.5 7.5-3 .5.5-3zM9 4.5L11.5 7',
  trash: 'M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.5 9h6l.5-9',
  hook: 'M8 5.5a2 2 0 1 0-1.6-3.2M7.2 5.2L4.6 9.6M4 13.5a2 2 0 1 0-1.5-3.4M6 11.5h5M12 13.3a2 2 0 1 0-1.3-3.6M10.6 9.6L8.2 5.4',
  chart: 'M2.5 13.5h11M4.5 11V8M8 11V3.5M11.5 11V6',
  gear: 'M8 10.2a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.4zM8 1.8v2M8 12.2v2M1.8 8h2M12.2 8h2M3.6 3.6L5 5M11 11l1.4 1.4M12.4 3.6L11 5M5 11l-1.4 1.4',
  key: 'M10.5 8a2.75 2.75 0 1 0-2.6-1.9L2.5 11.5v2h2.5v-1.5h1.5v-1.5L8.5 8',
  upload: 'M8 10.5v-8M4.5 5.5L8 2l3.5 3.5M2.5 13.5h11',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      strokeWidth={name === 'more' ? 2 : 1.4}
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
      focusable="false"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Logo({ size = 20 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="8" fill="var(--accent-fill)" />
      <path
        d="M13 7h6M14.5 7v7.2L9 23.2A1.9 1.9 0 0 0 10.7 26h10.6a1.9 1.9 0 0 0 1.7-2.8l-5.5-9V7M11.8 19.5h8.4"
        fill="none"
        stroke="var(--on-accent)"
        strokeWidth="2.2"
        strokeLinecap="round"
        strokeLinejoin="round"
      />
    </svg>
  );
}
