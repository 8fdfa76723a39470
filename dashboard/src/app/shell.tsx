/** The frame of all pages: navigation, the bar at the top, dialogs and messages. */

import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, Outlet, useNavigate, useRouter, useRouterState } from '@tanstack/react-router';
import { lazy, Suspense, useEffect, useRef, useState } from 'react';

import { systemQuery, type System } from '../api/keys';
import { pauseQuery, pauseWords } from '../api/pause';
import { useConnection, useFeed } from '../api/live';
import { sessionQuery, signOut } from '../api/session';
import { visible } from '../lib/ansi';
import { fullTime, timeOfDay } from '../lib/format';
import { AccessOf, useMayChange } from '../ui/access';
import { buttonClass } from '../ui/button';
import { Icon, Logo, type IconName } from '../ui/icons';
import { commandKey, Keys } from '../ui/kbd';
import { Menu, MenuItem, MenuLabel } from '../ui/menu';
import { Notice } from '../ui/notice';
import { PageLoading } from '../ui/page';
import { useShortcuts } from '../ui/shortcuts';
import { describe, Failure } from '../ui/states';
import { setTheme, THEMES, useTheme } from '../ui/theme';
import { toast, Toasts } from '../ui/toasts';
import styles from './main-layout.module.css';
import { Palette } from './palette'; // at once: keys typed after Ctrl K are its text

const ShortcutsHelp = lazy(() => import('./shortcuts-help').then((module) => ({ default: module.ShortcutsHelp })));

/** The pages of the navigation, in order. key: opens the page after `g`. */
export const PAGES = [
  { to: '/', label: 'Overview', icon: 'overview', key: 'o' },
  { to: '/jobs', label: 'Jobs', icon: 'jobs', key: 'j' },
  { to: '/agents', label: 'Agents', icon: 'agent', key: 'a' },
  { to: '/models', label: 'Models', icon: 'chip', key: 'm' },
  { to: '/sources', label: 'Webhooks', icon: 'hook', key: 'w' },
  { to: '/files', label: 'Files', icon: 'file', key: 'f' },
  { to: '/stats', label: 'Stats', icon: 'chart', key: 't' },
  { to: '/settings', label: 'Settings', icon: 'gear', key: 's' },
] as const satisfies readonly { to: string; label: string; icon: IconName; key: string }[];

export function Shell() {
  const { data: me } = useQuery(sessionQuery); // read before the page was opened
  return (
    <AccessOf mayChange={!me?.scopes.includes('viewer')}>
      <Frame since={me?.changes ?? undefined} />
    </AccessOf>
  );
}

/**
 * The frame while the session is read. It has no controls: the session may lead to the sign-in page, or be a viewer's.
 */
export function PendingShell() {
  return (
    <div className={styles.shell}>
      <div className={styles.sidebar} />
      <div className={styles.column}>
        <div className={styles.topbar} />
        <main className={styles.main}>
          <PageLoading />
        </main>
      </div>
    </div>
  );
}

/** since: the feed's id before the data of the page was read. */
function Frame({ since }: { since: string | undefined }) {
  const navigate = useNavigate();
  const [dialog, setDialog] = useState<'palette' | 'help'>();
  const close = () => setDialog(undefined);
  useFeed(since);
  useFocusOfPages();

  useShortcuts([
    { keys: '?', label: 'Show the shortcuts', run: () => setDialog('help') },
    { keys: 'c', label: 'New job', isChanging: true, run: () => void navigate({ to: '/jobs/new' }) },
    ...PAGES.map((page) => ({
      keys: `g ${page.key}`,
      label: `Go to ${page.label}`,
      run: () => void navigate({ to: page.to }),
    })),
  ]);
  useEffect(() => {
    const open = (event: KeyboardEvent) => {
      if (event.key.toLowerCase() !== 'k' || !(event.metaKey || event.ctrlKey)) return;
      event.preventDefault();
      setDialog('palette');
    };
    document.addEventListener('keydown', open);
    return () => document.removeEventListener('keydown', open);
  }, []);

  return (
    <div className={styles.shell}>
      <a className={styles.skip} href="#main">
        Skip to content
      </a>
      <Sidebar />
      <div className={styles.column}>
        <TopBar onSearch={() => setDialog('palette')} onHelp={() => setDialog('help')} />
        <main id="main" tabIndex={-1} className={styles.main}>
          <EngineNotice />
          <Outlet />
        </main>
      </div>
      <BottomBar onMore={() => setDialog('palette')} />
      {dialog === 'palette' && <Palette onClose={close} onHelp={() => setDialog('help')} />}
      <Suspense>{dialog === 'help' && <ShortcutsHelp onClose={close} />}</Suspense>
      <Toasts />
    </div>
  );
}

/** Time between two looks at the engine's disk. */
const SYSTEM_MS = 60_000;

/** What limits the whole engine until somebody changes its machine or settings. */
function EngineNotice() {
  const systemRead = useQuery({ ...systemQuery, staleTime: Infinity, refetchInterval: SYSTEM_MS });
  const pauseRead = useQuery({ ...pauseQuery, staleTime: Infinity });
  const failed = [systemRead, pauseRead].find((read) => read.isLoadingError);
  const { data: system } = systemRead;
  const { data: pause } = pauseRead;
  // A replica of an earlier version reports none.
  const containment: System['containment'] | undefined = system?.containment;
  const reason = containment?.noSandbox;
  const fullDisk = system?.disk.problem;
  if (!failed && !reason && !pause?.paused && !fullDisk) return null;
  return (
    <div className={styles.notice}>
      {failed && <Failure error={failed.error} onRetry={() => void failed.refetch()} />}
      {pause?.paused && <Notice>{pauseWords(pause)} No job starts until somebody resumes it.</Notice>}
      {fullDisk && <Notice>The engine stores nothing new: {visible(fullDisk)}.</Notice>}
      {reason && (
        <Notice>
          No sandbox works here ({visible(reason)}): only jobs of administrators run, and their agents can do all that
          the engine’s user can. Install bubblewrap and allow user namespaces, or set <code>LABRATS_SANDBOX=false</code>
          .
        </Notice>
      )}
    </div>
  );
}

/**
 * Move the focus to a page that was opened, unless something of it or of the frame has it: it would be lost with the
 * link.
 */
function useFocusOfPages(): void {
  const pathname = useRouterState({ select: ({ resolvedLocation }) => resolvedLocation?.pathname }); // once it is drawn
  const latest = useRef(pathname);
  useEffect(() => {
    const isFirst = latest.current === undefined;
    if (latest.current === pathname) return;
    latest.current = pathname;
    if (!isFirst && document.activeElement === document.body)
      document.getElementById('main')?.focus({ preventScroll: true });
  }, [pathname]);
}

/** Number of pages in the bar at the bottom. The search, which lists all pages, is behind "More". */
const BOTTOM_PAGES = 4;

type PageLink = Omit<(typeof PAGES)[number], 'key'>;

function NavLink({ to, label, icon }: PageLink) {
  return (
    <Link to={to} activeOptions={{ exact: to === '/', includeSearch: false }}>
      <Icon name={icon} />
      {label}
    </Link>
  );
}

function Sidebar() {
  const { data } = useQuery(sessionQuery);
  return (
    <nav aria-label="Pages" className={styles.sidebar}>
      <Link to="/" className={styles.brand}>
        <Logo />
        Labrats
      </Link>
      <div className={styles.nav}>
        {PAGES.map(({ to, label, icon }) => (
          <NavLink key={to} to={to} label={label} icon={icon} />
        ))}
      </div>
      <p className={styles.version}>
        <span>{data?.version}</span>
        <a href="/api/docs">API reference</a>
      </p>
    </nav>
  );
}

function BottomBar({ onMore }: { onMore: () => void }) {
  return (
    <nav aria-label="Pages" className={styles.bottom}>
      {PAGES.slice(0, BOTTOM_PAGES).map(({ to, label, icon }) => (
        <NavLink key={to} to={to} label={label} icon={icon} />
      ))}
      <button type="button" onClick={onMore}>
        <Icon name="more" />
        More
      </button>
    </nav>
  );
}

function TopBar({ onSearch, onHelp }: { onSearch: () => void; onHelp: () => void }) {
  const mayChange = useMayChange();
  return (
    <header className={styles.topbar}>
      <Link to="/" className={`${styles.brand} ${styles.mobileOnly}`} aria-label="Labrats, overview">
        <Logo size={24} />
      </Link>
      <button type="button" className={styles.search} onClick={onSearch}>
        <Icon name="search" size={14} />
        <span>Search or jump to…</span>
        <Keys keys={commandKey('K')} />
      </button>
      <div className={styles.space} />
      <ConnectionState />
      {mayChange ? (
        <Link to="/jobs/new" className={buttonClass('primary')}>
          <Icon name="plus" size={14} />
          New job
        </Link>
      ) : (
        <span className={styles.role} title="You see everything, and change nothing.">
          Viewer
        </span>
      )}
      <Account onHelp={onHelp} />
    </header>
  );
}

function ConnectionState() {
  const { isReachable, at } = useConnection();
  return (
    <div
      role="status"
      className={`${styles.connection} ${isReachable ? '' : styles.lost}`}
      title={isReachable ? 'The engine answers.' : undefined}
    >
      <span className={styles.dot} />
      <span className={styles.connectionText}>
        {isReachable ? 'Live' : `Reconnecting… showing ${timeOfDay(new Date(at))}`}
      </span>
    </div>
  );
}

function Account({ onHelp }: { onHelp: () => void }) {
  const { data } = useQuery(sessionQuery);
  const mayChange = useMayChange();
  const theme = useTheme();
  const queries = useQueryClient();
  const router = useRouter();
  const leave = async () => {
    try {
      // The sign-in page is loaded first: until it is shown, this page would send requests without a session.
      await import('../features/login/login-route').catch(() => undefined); // signing out must not depend on it
      await signOut();
      queries.clear();
      await router.navigate({ to: '/login' });
    } catch (error) {
      toast(describe(error).message, 'error');
    }
  };
  return (
    <Menu label="Account" button={<Icon name="user" />} className={styles.account}>
      {(close) => (
        <>
          <MenuLabel>
            Signed in as {data?.user?.name ?? '…'}, {mayChange ? 'an admin' : 'a viewer'}
            {data?.expiresAt && ` until ${fullTime(new Date(data.expiresAt))}`}
          </MenuLabel>
          {THEMES.map((each) => (
            <MenuItem
              key={each}
              isChecked={each === theme}
              onSelect={() => {
                setTheme(each);
                close();
              }}
            >
              {each === 'system' ? 'Theme of the system' : `${each.charAt(0).toUpperCase()}${each.slice(1)} theme`}
            </MenuItem>
          ))}
          <MenuItem
            onSelect={() => {
              close();
              onHelp();
            }}
          >
            <Icon name="keyboard" /> Keyboard shortcuts
          </MenuItem>
          <MenuItem onSelect={() => void leave()}>
            <Icon name="logout" /> Sign out
          </MenuItem>
        </>
      )}
    </Menu>
  );
}
