"""The engine's end of the launcher: the warm process that forks an executor per attempt.

Starting Python for each attempt would cost 40-110 ms; a fork of a process that has everything imported costs about one.
The launcher outlives the engine for as long as it has executors, so that these keep a parent that sees how they end.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress
from typing import Any

import structlog

from labrats.model.errors import RetryLater

log = structlog.get_logger()

SPAWN_SECONDS = 30.0


class LauncherClient:
    """Starts the launcher process when first needed, and again should it die."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: deque[asyncio.Future[int]] = deque()  # it answers in the order in which it was asked
        self._received = b""

    async def fork(self, folder: str) -> int:
        """Have an executor forked for the attempt in `folder`; its pid. Raises RetryLater when the launcher died."""
        try:
            if self._socket is None:
                self._spawn()
            async with asyncio.timeout(SPAWN_SECONDS):
                return await self._ask(folder)
        except (OSError, TimeoutError) as error:
            self._give_up("the launcher does not answer")
            raise RetryLater("the launcher does not answer") from error

    async def _ask(self, folder: str) -> int:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        self._waiting.append(answer)
        try:
            await loop.sock_sendall(self._socket, json.dumps({"folder": folder}).encode() + b"\n")
            return await answer
        finally:
            answer.cancel()  # nobody waits for it any more

    def close(self) -> None:
        """Let go of the launcher: it ends once its last executor has."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.poll()
            self._process.returncode = self._process.returncode or 0  # it may live on, and is not waited for
            self._process = None

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "labrats.executor.launcher", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the engine's terminal is not for the executors
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
                cwd="/",
            )
        self._socket, self._received = ours, b""
        asyncio.get_running_loop().add_reader(ours, self._read_answers)

    def _read_answers(self) -> None:
        assert self._socket is not None
        with suppress(BlockingIOError):
            data = b""
            with suppress(ConnectionResetError):
                data = self._socket.recv(65536)
            if not data:
                self._give_up("the launcher died")
                return
            *lines, self._received = (self._received + data).split(b"\n")
            for line in lines:
                _settle(self._waiting.popleft(), json.loads(line))

    def _give_up(self, reason: str) -> None:
        """Let go of a launcher that is of no use. What it may still start competes for the claim like any other."""
        log.error("a new launcher is needed", reason=reason)
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)  # where somebody has stopped it, it would stay for ever
        self.close()
        while self._waiting:
            _settle(self._waiting.popleft(), {"error": reason})


def _settle(waiting: asyncio.Future[int], answer: dict[str, Any]) -> None:
    if waiting.done():
        return  # whoever asked has gone
    if "pid" in answer:
        waiting.set_result(answer["pid"])
    else:
        waiting.set_exception(RetryLater(f"no executor could be started: {answer['error']}"))
