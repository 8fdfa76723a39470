"""The cache keeper: copies cached folders in a container of its own beside the executor.

No other container mounts the volume of the caches, so that neither setup commands nor the agent can change what later
jobs get. The keeper obeys whoever knows its token, and only the executor does. It finds the entries itself: a request
names nothing.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from labrats.executor.context import RunContext
from labrats.executor.inputs import read_task
from labrats.executor.stop_signals import stop_event
from labrats.executor.token_server import start_token_server
from labrats.executor.workspace_caches import Caches, FolderCaches
from labrats.model.protocol import CACHE_KEEPER_FILE, CACHE_KEEPER_PORT, Task
from labrats.model.workspace_setup import Setup
from labrats.processes import become_unreadable
from labrats.sandbox.network_namespace import LOOPBACK

CONNECT_SECONDS: Final = 30.0
"""Time for which the executor waits for the keeper to listen."""

_RETRY_SECONDS: Final = 0.1
_STORE: Final = b"store\n"
_DONE: Final = b"null\n"
"""The end of the answer to a request. The lines before it are log lines, each a JSON string."""


def caches_of(context: RunContext, setup: Setup) -> Caches:
    """Return the cached folders of a job: of the keeper in this pod, or of a folder on this machine."""
    if setup.cache and (token := context.secrets.get(CACHE_KEEPER_FILE)):
        return KeptCaches(token, context.events.log)
    return FolderCaches(context.task, context.workspace, setup, context.events.log)


class KeptCaches:
    """The cached folders of the cache keeper."""

    def __init__(self, token: str, log: Callable[[str], None], port: int = CACHE_KEEPER_PORT) -> None:
        self._token, self._log, self._port = token, log, port
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def restore(self) -> None:
        try:
            self._connection = await self._connect()
            await self._request(f"{self._token}\n".encode())
        except OSError as error:
            self._close()
            self._log(f"[cache: not used: the cache keeper does not answer: {error}]")

    async def store(self) -> None:
        if self._connection is None:
            return
        try:
            await self._request(_STORE)
        except OSError as error:
            self._log(f"[cache: not stored: the cache keeper does not answer: {error}]")
        finally:
            self._close()

    def _close(self) -> None:
        if self._connection:
            self._connection[1].close()
            self._connection = None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(CONNECT_SECONDS):
            while True:
                with suppress(ConnectionRefusedError):
                    return await asyncio.open_connection(LOOPBACK, self._port)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _request(self, request: bytes) -> None:
        assert self._connection is not None
        reader, writer = self._connection
        writer.write(request)
        while (line := await reader.readline()) != _DONE:
            if not line.endswith(b"\n"):
                raise ConnectionResetError("it closed the connection")
            self._log(json.loads(line))


def run_keeper(source: Path, token_folder: Path) -> int:
    """Keep the caches of the attempt whose task is in `source`, until SIGTERM. Return the exit status."""
    become_unreadable()
    task = read_task(source)
    token = (token_folder / CACHE_KEEPER_FILE).read_bytes()
    asyncio.run(_serve_until_stopped(task, token))
    return 0


async def _serve_until_stopped(task: Task, token: bytes) -> None:
    stopped = stop_event()
    async with await serve_caches(task, token, socket.create_server((LOOPBACK, CACHE_KEEPER_PORT))):
        await stopped.wait()


async def serve_caches(task: Task, token: bytes, listener: socket.socket) -> asyncio.Server:
    """Serve the caches of a task to the first caller who knows the token.

    A caller's own image could have the same folder stored many times at once.
    """
    is_served = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal is_served

        def log(text: str) -> None:
            writer.write(json.dumps(text).encode() + b"\n")

        if is_served:
            return
        is_served = True
        caches = FolderCaches(task, Path(task.workspace), task.workspace_setup or Setup(), log)
        await caches.restore()
        writer.write(_DONE)
        if await reader.readline() == _STORE:
            await caches.store()
            writer.write(_DONE)
        await writer.drain()

    return await start_token_server(token, listener, serve)
