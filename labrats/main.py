"""The `labrats` command: reads the settings, checks them, and starts what compose.py wires together."""

import asyncio
import gc
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from labrats.model.errors import LabratsError

if TYPE_CHECKING:
    from labrats.api.http.server import Server
    from labrats.api.services import Services
    from labrats.model.backup import BackupSummary
    from labrats.model.errors import Problem
    from labrats.model.record import Resource
    from labrats.ports import Store
    from labrats.settings import EngineSettings

R = TypeVar("R", bound="Resource")

RESERVED_DESCRIPTORS: Final = 512
"""File descriptors that connections leave to the database, attempts and files."""

LOCK_TRIES: Final = 10
LOCK_PAUSE_SECONDS: Final = 0.02
"""Tries for the lock of the data folder, and the pause between two: commands of the client hold it for a moment."""

OnReady = Callable[[str, str | None], None]
"""Called with the engine's URL and its one-time login link, if it has one."""

OnCreate = Callable[[Path], None]
"""Called with a data folder before the first data is written there."""


def main() -> None:
    """Run the `labrats` command."""
    from labrats.cli.app import build_app, run

    open_standard_streams()
    ensure_home()
    sys.exit(run(build_app(Commands())))


class Commands:
    """The commands that need more than the HTTP API: the EngineCommands of labrats/cli/engine.py."""

    def serve(
        self,
        on_ready: OnReady,
        *,
        host: str | None,
        port: int | None,
        data_dir: Path | None,
        backend: str | None,
        role: str | None,
        sandbox: Literal["true"] | None,
    ) -> None:
        # Modules and jobs are loaded once and stay: collections would scan them in vain.
        gc.disable()
        gc.set_threshold(50_000, 20, 20)
        import uvloop

        with hidden("rich"):  # structlog would load it for tracebacks that this log never has: 3 MiB
            from labrats.logs import log_loop_error
        from labrats.engine_port import listen, reserved

        settings = read_settings(host=host, port=port, data_dir=data_dir, backend=backend, role=role, sandbox=sandbox)
        refuse_unprotected(settings)
        refuse_partial_role(settings)
        refuse_missing_packages(settings)
        refuse_foreign_folder(settings)
        enter_scope(settings)
        os.umask(0o077)
        create_folders(settings)
        with (
            lock_data_folder(settings),
            listen(settings.host, settings.port) as listener,
            reserved(listener) as kept_open,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            record_port(settings, listener)
            runner.get_loop().set_exception_handler(log_loop_error)
            runner.run(serve(settings, listener, kept_open, on_ready))

    def create_api_key(
        self,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime | None,
        data_dir: Path | None,
        on_create: OnCreate,
    ) -> str:
        from labrats.api.auth.keys import key_secret, new_key
        from labrats.api.routes.api_keys import check_key

        check_key(name, scopes)
        key = new_key()

        async def store_key() -> None:
            async with self.open_store(data_dir, on_create) as store:
                await store.create(key_secret(name, key, scopes, expires_at))

        asyncio.run(store_key())
        return key

    async def login_link(self, data_dir: Path | None, url: str) -> str:
        from labrats.api.auth.login_links import create_login_link
        from labrats.ports import SystemClock

        async with self.open_store(data_dir) as store:
            return await create_login_link(store, url, SystemClock().now())

    def back_up(self, data_dir: Path | None, target: Path) -> "BackupSummary":
        from labrats.compose import data_folders

        settings = read_settings(data_dir=data_dir)
        refuse_foreign_folder(settings)
        from labrats.backends.embedded.data_backup import back_up

        return back_up(data_folders(settings), target)

    def restore(self, source: Path, data_dir: Path | None) -> "BackupSummary":
        from labrats.backends.embedded.data_backup import restore
        from labrats.compose import data_folders

        return restore(source, data_folders(read_settings(data_dir=data_dir)))

    def open_store(
        self, data_dir: Path | None, on_create: OnCreate | None = None
    ) -> "AbstractAsyncContextManager[Store]":
        from labrats.compose import has_data, open_store

        settings = read_settings(data_dir=data_dir)
        refuse_missing_packages(settings)
        refuse_foreign_folder(settings)
        if not has_data(settings):
            if on_create is None:
                folder = "name the engine's folder with --data-dir or LABRATS_DATA_DIR"
                raise LabratsError(f"{settings.data_dir} has no data of an engine; {folder}")
            on_create(settings.data_dir)
        return open_store(settings)

    def manifests(self, namespace: str, image: str, executor_image: str, *, labelled_credentials: bool) -> str:
        from labrats.manifests.install import installation

        return installation(namespace, image, executor_image, labelled_credentials=labelled_credentials)

    def custom_resources(self) -> str:
        from labrats.manifests.install import custom_resources

        return custom_resources()

    def problems_in(self, kind: str, name: str, spec: dict[str, Any]) -> "Sequence[Problem]":
        from labrats.api.spec_validation import problems_in

        return problems_in(kind, name, spec)

    def settings(self) -> "EngineSettings":
        return read_settings()

    def keeps_open_network(self) -> bool:
        from labrats.compose import keeps_open_network

        return keeps_open_network(read_settings())

    def stored(self, kind: "type[R]") -> "Sequence[R]":
        from labrats.compose import stored

        return asyncio.run(stored(kind, read_settings()))

    def cluster_network(self) -> tuple[str | None, bool | None]:
        from labrats.compose import cluster_network

        return cluster_network(read_settings())


async def serve(
    settings: "EngineSettings", listener: socket.socket, kept_open: Sequence[int], on_ready: OnReady
) -> None:
    """Run the engine, or its part, until SIGINT or SIGTERM. If one loop dies, all stop and its error surfaces.

    kept_open: descriptors that local executors inherit; see `labrats.engine_port.reserved`.
    """
    import structlog

    from labrats.compose import needs_migration, open_engine
    from labrats.logs import configure_logs
    from labrats.processes import (
        become_unreadable,
        drop_relative_search_paths,
        raise_descriptor_limit,
        return_freed_memory,
    )

    become_unreadable()  # agents run as the same user, and the environment may contain keys
    return_freed_memory()
    configure_logs(settings.log_level, settings.log_format)
    warn_about_settings(settings)
    if dropped := drop_relative_search_paths():
        structlog.get_logger().warning("relative entries of PATH ignored", entries=dropped)
    if settings.backend == "embedded":
        keep_others_out(settings.workspaces)
    descriptors = raise_descriptor_limit()
    if needs_migration(settings):
        await migrate_data(settings, listener)
    async with open_engine(settings, kept_open) as engine, asyncio.TaskGroup() as loops:
        from labrats.api.http.server import ClientLimits, Server

        with hidden("pydantic.v1"):  # FastAPI would load it to compare its models with ours
            from labrats.api.app import create_app

        services = engine.services
        limits = ClientLimits(connections=max(descriptors // 2, descriptors - RESERVED_DESCRIPTORS))
        server = Server(create_app(services), limits, settings.trusted_proxies)
        gc.freeze()  # everything loaded so far stays for the life of the process
        gc.enable()
        background = [
            loops.create_task(services.catalog.follow(services.store), name="catalog"),
            loops.create_task(announce(services, server, listener, on_ready), name="announce"),
        ]
        if settings.needs_jobs:
            background.append(loops.create_task(services.job_index.follow(services.store), name="job-index"))
        if settings.receives_webhooks:
            deliveries = services.deliveries.run(services.store, services.clock)
            background.append(loops.create_task(deliveries, name="deliveries"))
        if settings.answers_requests:
            background.append(loops.create_task(services.api_keys.follow(services.store), name="api-keys"))
            background.append(loops.create_task(services.sessions.follow(services.store), name="sessions"))
            background.append(loops.create_task(services.bulk_actions.run(), name="bulk-actions"))
            feed = services.change_feed.run(services.store)
            background.append(loops.create_task(feed, name="change-feed"))
            background.append(loops.create_task(services.activities.run(), name="activities"))
            uses = services.key_uses.run(services.store, services.clock)
            background.append(loops.create_task(uses, name="key-uses"))
        if settings.drives_jobs or settings.publishes_reports:
            background.append(loops.create_task(engine.drive(), name="drive"))
        stop_on_signals(services, server)
        await server.serve([listener])
        for task in background:
            task.cancel()


async def migrate_data(settings: "EngineSettings", listener: socket.socket) -> None:
    """Migrate data of an earlier version. Meanwhile the engine is alive but not ready, and logs the progress."""
    import structlog

    from labrats.api.http.starting import starting_responses
    from labrats.compose import migrate

    log, reached = structlog.get_logger(), ("", -1)

    def report(step: str, share: float) -> None:
        nonlocal reached
        if (now := (step, int(share * 10))) != reached:
            reached = now
            log.info("database migration", step=step, percent=now[1] * 10)

    def message() -> str:
        return f"the engine migrates its database: {reached[0]} {max(0, reached[1]) * 10} %"

    async with starting_responses(listener, message):
        await migrate(settings, report)
    log.info("database migrated")


async def announce(services: "Services", server: "Server", listener: socket.socket, on_ready: OnReady) -> None:
    """Log that the engine is ready, once it listens and its watches are complete, and call `on_ready`."""
    import structlog

    url = browser_url(*listener.getsockname()[:2])
    login_link = await create_first_login_link(services, url)  # stored before the engine is ready
    for synced in services.watches.values():
        await synced.wait()
    await server.listening.wait()
    structlog.get_logger().info("engine ready", url=url, data=str(services.settings.data_dir))
    try:
        on_ready(url, login_link)
    except OSError as error:
        structlog.get_logger().warning("greeting not printed", reason=error.strerror)
    gc.freeze()  # as the modules do, the jobs read so far stay


def browser_url(host: str, port: int) -> str:
    """Return the URL of an engine that listens on `host`: on loopback if that means all addresses of the machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104, compared only
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def create_first_login_link(services: "Services", url: str) -> str | None:
    """Create the link by which the owner of a local engine signs in.

    Return None where OpenID Connect is used, and if the link cannot be stored, for example on a full disk.
    """
    import structlog

    from labrats.api.auth.login_links import create_login_link
    from labrats.model.errors import RetryLater

    settings = services.settings
    if settings.backend != "embedded" or settings.oidc_issuer:
        return None
    try:
        return await create_login_link(services.store, settings.public_url or url, services.clock.now())
    except RetryLater as error:
        structlog.get_logger().warning("login link not created", reason=str(error), advice="run labrats login-link")
        return None


def stop_on_signals(services: "Services", server: "Server") -> None:
    """Stop the engine on SIGINT and SIGTERM."""

    def stop() -> None:
        services.stopping.set()  # open streams end, and their readers resume at the next engine
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def read_settings(**options: Any) -> "EngineSettings":
    """Read the settings from the environment. Options other than None take precedence."""
    from labrats.settings import EngineSettings

    return EngineSettings(**{name: value for name, value in options.items() if value is not None})


def refuse_unprotected(settings: "EngineSettings") -> None:
    """Raise LabratsError for an address beyond loopback unless users must sign in or LABRATS_ALLOW_PUBLIC is set."""
    if not settings.listens_on_loopback and not settings.oidc_issuer and not settings.allow_public:
        raise LabratsError(
            f"{settings.host} is reachable from other machines, and no OIDC_ISSUER is set, at which users sign in; "
            "set OIDC_ISSUER, or LABRATS_ALLOW_PUBLIC=true if this is intended"
        )


def refuse_partial_role(settings: "EngineSettings") -> None:
    """Raise LabratsError for a role other than `all` on the embedded backend, which has no other processes."""
    if settings.backend == "embedded" and settings.role != "all":
        raise LabratsError(
            f"the role {settings.role!r} needs the backend `kubernetes`; on one machine the engine has the role `all`"
        )


def refuse_missing_packages(settings: "EngineSettings") -> None:
    """Raise LabratsError for a backend whose packages are not installed."""
    from importlib.util import find_spec

    if settings.backend == "kubernetes" and find_spec("aiohttp") is None:
        raise LabratsError("the backend `kubernetes` needs more packages: pip install 'labrats[kubernetes]'")


def refuse_foreign_folder(settings: "EngineSettings") -> None:
    """Raise LabratsError for a data folder of another user, which this one may not use."""
    from labrats.files.foreign_folder import problem_of_foreign_folder

    if settings.backend == "embedded" and (problem := problem_of_foreign_folder(settings.data_dir)):
        raise LabratsError(problem)


def create_folders(settings: "EngineSettings") -> None:
    """Create the folders of the data, so that one that cannot be created stops the start and not an upload later.

    Raises LabratsError for a path that is not a folder, and OSError.
    """
    folders = [settings.data_dir]
    if settings.backend == "embedded":
        folders += [settings.workspaces, settings.uploads]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise LabratsError(f"{error.filename} is not a folder, and {folder} is to be one") from error
    if settings.backend == "embedded" and settings.workspaces.stat().st_mode & stat.S_ISVTX:
        raise LabratsError(f"WORKSPACE_DIR must be a folder of its own, and {settings.workspaces} is for all users")


def keep_others_out(workspaces: Path) -> None:
    """Let only this user enter the folder of workspaces. It is logged if that is not possible.

    An agent gives its files any mode: with a program that runs as its owner, another user of the machine could act as
    the engine's user.
    """
    import structlog

    mode, others = stat.S_IMODE(workspaces.stat().st_mode), stat.S_IRWXG | stat.S_IRWXO
    if mode & others:
        try:
            workspaces.chmod(mode & ~others)
        except PermissionError:
            risk = "other users can run what an agent leaves there, with the rights of this user"
            structlog.get_logger().warning("workspaces open to other users", folder=str(workspaces), risk=risk)


def enter_scope(settings: "EngineSettings") -> None:
    """Restart this engine in a scope of systemd if jobs have limits, which the kernel enforces there."""
    if settings.backend != "embedded" or (settings.agent_memory is None and settings.agent_processes is None):
        return
    import structlog

    from labrats.logs import configure_logs
    from labrats.sandbox.control_groups import restart_in_scope

    if problem := restart_in_scope():
        configure_logs(settings.log_level, settings.log_format)
        structlog.get_logger().warning("limits of jobs only measured", reason=problem)


def warn_about_settings(settings: "EngineSettings") -> None:
    """Log variables that look like settings and are none, and keys that can be guessed."""
    import structlog

    from labrats.settings import MIN_API_KEY_LENGTH, unknown_settings

    log = structlog.get_logger()
    # A cluster gives each pod variables about its Services, which may have such names.
    for name, meant in unknown_settings(os.environ) if settings.backend == "embedded" else ():
        log.warning("unknown setting", variable=name, meant=meant or "see `labrats config`")
    if any(len(key.get_secret_value()) < MIN_API_KEY_LENGTH for key in settings.submit_api_keys):
        log.warning("a key in SUBMIT_API_KEYS can be guessed", shortest=MIN_API_KEY_LENGTH)


def open_standard_streams() -> None:
    """Open /dev/null for each closed standard stream, whose descriptor the next opened file would get otherwise."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, descriptor)
            if opened != descriptor:
                os.close(opened)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def ensure_home() -> None:
    """Give a user whom the system does not know the home `/`, as container runtimes do, unless HOME names another."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"


@contextmanager
def hidden(module: str) -> Iterator[None]:
    """Let imports of an optional module fail during the block, unless it is already loaded."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        yield
    finally:
        del sys.modules[module]


def record_port(settings: "EngineSettings", listener: socket.socket) -> None:
    """Record the engine's port in its locked data folder. Commands send the admin key to no other port."""
    if settings.backend == "embedded":
        (settings.data_dir / "engine.lock").write_text(f"{listener.getsockname()[1]}\n")


@contextmanager
def lock_data_folder(settings: "EngineSettings") -> Iterator[None]:
    """Lock the data folder for this process. Raises LabratsError while another engine holds the lock.

    Engines of one cluster may share a folder. One that is not the whole engine does not lock it: the folder may be on a
    file system without locks, and contains no admin key.
    """
    import fcntl  # Windows, where only the commands of the client work, has none

    is_shared = settings.backend == "kubernetes"
    if is_shared and settings.role != "all":
        yield
        return
    with open(settings.data_dir / "engine.lock", "a") as lock:
        for _ in range(LOCK_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(lock, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            folder = settings.data_dir
            raise LabratsError(f"another engine is running on {folder}; choose another folder with --data-dir")
        yield
