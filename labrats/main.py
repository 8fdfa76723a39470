"""The engine put together: the only module that names a backend. Imports what is heavy only when an engine runs."""

import asyncio
import fcntl
import gc
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from labrats.model.errors import Conflict, LabratsError

if TYPE_CHECKING:
    from labrats.api.engine import Engine
    from labrats.backends.embedded.runner import LocalRunnerSettings
    from labrats.ports import Store
    from labrats.settings import EngineSettings

DATABASE: Final = "labrats.db"
OnReady = Callable[[str], None]


def main() -> None:
    """The `labrats` command."""
    from labrats.cli.app import build_app, run

    sys.exit(run(build_app(EmbeddedCommands())))


class EmbeddedCommands:
    """What the command line can have an engine on this machine do: see EngineCommands in labrats/cli/engine.py."""

    def serve(self, host: str | None, port: int | None, data_dir: Path | None, on_ready: OnReady | None) -> None:
        import uvloop

        settings = read_settings(host=host, port=port, data_dir=data_dir)
        refuse_unprotected(settings)
        os.umask(0o077)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with (
            only_engine_of(settings.data_dir),
            listen(settings.host, settings.port) as listener,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(serve(settings, listener, on_ready))

    def open_store(self, data_dir: Path | None) -> "AbstractAsyncContextManager[Store]":
        from labrats.backends.embedded.store import EmbeddedStore

        return EmbeddedStore.open(read_settings(data_dir=data_dir).data_dir / DATABASE)

    def settings(self) -> "EngineSettings":
        return read_settings()


async def serve(settings: "EngineSettings", listener: socket.socket, on_ready: OnReady | None) -> None:
    """Run API and controller until SIGINT or SIGTERM. If one part dies, all stop and its error surfaces."""
    from labrats.api.app import create_app
    from labrats.api.server import Server
    from labrats.controller.reconcile import Controller
    from labrats.controller.retention import Retention
    from labrats.logs import configure_logs

    configure_logs(settings.log_level, settings.log_format)
    async with open_engine(settings) as engine, asyncio.TaskGroup() as loops:
        controller = Controller(engine.store, engine.runner, engine.clock, settings, engine.metrics)
        retention = Retention(engine.store, engine.runner, engine.cache, engine.attachments, engine.clock, settings)
        server = Server(create_app(engine))
        background = [
            loops.create_task(engine.cache.follow(engine.store), name="cache"),
            loops.create_task(engine.keys.follow(engine.store), name="keys"),
            loops.create_task(controller.run(), name="controller"),
            loops.create_task(retention.run(), name="retention"),
            loops.create_task(announce(engine, server, listener, on_ready), name="announce"),
        ]
        _stop_on_signals(engine, server)
        await server.serve([listener])
        for task in background:
            task.cancel()


@asynccontextmanager
async def open_engine(settings: "EngineSettings") -> "AsyncIterator[Engine]":
    """The engine on this machine: SQLite and processes. Its parts are closed in reverse order."""
    from labrats.api.engine import Engine
    from labrats.api.keys import KeyRing
    from labrats.attachments import Attachments
    from labrats.backends.embedded.runner import LocalRunner
    from labrats.backends.embedded.store import EmbeddedStore
    from labrats.cache import JobCache
    from labrats.metrics import Metrics
    from labrats.ports import SystemClock

    async with AsyncExitStack() as parts:
        store = await parts.enter_async_context(EmbeddedStore.open(settings.data_dir / DATABASE))
        runner = await parts.enter_async_context(LocalRunner(store, runner_settings(settings)))
        await ensure_admin_key(store, settings.admin_key_file)
        yield Engine(
            store=store,
            runner=runner,
            clock=SystemClock(),
            settings=settings,
            cache=JobCache(),
            keys=KeyRing([key.get_secret_value() for key in settings.submit_api_keys]),
            attachments=Attachments(settings.uploads),
            metrics=Metrics(),
        )


def read_settings(**options: Any) -> "EngineSettings":
    """The settings of the environment, and over them the `options` that are not None."""
    from labrats.settings import EngineSettings

    return EngineSettings(**{name: value for name, value in options.items() if value is not None})


def runner_settings(settings: "EngineSettings") -> "LocalRunnerSettings":
    from labrats.backends.embedded.folders import Folders
    from labrats.backends.embedded.runner import LocalRunnerSettings

    claude = settings.claude_path or shutil.which("claude")
    return LocalRunnerSettings(
        folders=Folders(settings.data_dir / "attempts", settings.workspaces),
        environment=dict(os.environ),
        programs={"claude": claude} if claude else {},
        git_addresses=settings.outbound_allowed_cidrs,
        repo_roots=settings.local_repo_roots,
        cli_login=settings.claude_use_login,
    )


def refuse_unprotected(settings: "EngineSettings") -> None:
    """Raises LabratsError for an address beyond loopback that nobody asked to be reachable."""
    try:
        loopback = settings.host == "localhost" or ip_address(settings.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not settings.allow_public:
        raise LabratsError(
            f"{settings.host} is reachable from other machines, where only API keys protect the engine; "
            "LABRATS_ALLOW_PUBLIC=true says that this is meant"
        )


@contextmanager
def only_engine_of(data_dir: Path) -> Iterator[None]:
    """Hold the data folder for this process. Raises LabratsError when another engine has it."""
    with open(data_dir / "engine.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another engine is running on {data_dir}; choose another folder with --data-dir"
            raise LabratsError(message) from error
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError, before anything else of the engine is touched."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


async def ensure_admin_key(store: "Store", path: Path) -> None:
    """See to it that the file at `path`, which only its owner can read, holds a valid admin key.

    The file is written first: a crash in between leaves a key that is not valid yet, and is made so at the next start.
    """
    from labrats.api.keys import ADMIN, SUBMIT, key_secret, new_key

    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{new_key()}\n")
    except FileExistsError:
        pass
    secret = key_secret(ADMIN, path.read_text().strip(), (SUBMIT, ADMIN))
    try:
        await store.create(secret)
    except Conflict:
        known = await store.get(type(secret), secret.name)
        if known.data["hash"] != secret.data["hash"]:  # the file was replaced, or lost and made anew
            await store.delete(type(secret), secret.name)
            await store.create(secret)


async def announce(engine: "Engine", server: Any, listener: socket.socket, on_ready: OnReady | None) -> None:
    """Say that the engine is up, once requests are answered from complete caches."""
    import structlog

    await engine.cache.synced.wait()
    await engine.keys.synced.wait()
    await server.listening.wait()
    # What has been loaded by now stays: the collector need not look at it again, and garbage is rare afterwards.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    structlog.get_logger().info("engine ready", url=url, data=str(engine.settings.data_dir))
    if on_ready:
        on_ready(url)


def _stop_on_signals(engine: "Engine", server: Any) -> None:
    def stop() -> None:
        engine.stopping.set()  # open streams end; their readers resume at the next engine
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
