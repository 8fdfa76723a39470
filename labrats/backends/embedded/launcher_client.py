"""The engine's client of the launcher, the process that forks the executors of attempts.

A new Python process for each attempt would cost 40-110 ms; a fork of a process with all imports done costs some
milliseconds, and an executor that has just run another attempt less than one.
The launcher outlives the engine until its last executor has ended, so that every executor has a parent that reaps it.
"""

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog

from labrats.model.errors import GiveUp, RetryLater
from labrats.model.job import FailedCode

log = structlog.get_logger()

SPAWN_SECONDS = 30.0

MOST_FAILED_STARTS: Final = 3
"""Launchers that end one after the other without an answer. After them, jobs fail until a launcher answers."""

_SHORTAGES: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""Errors at the start of a launcher that pass by themselves."""


class LauncherClient:
    """A launcher process, started on first use and again after it died."""

    def __init__(self, on_ended: Callable[[str, int], bool], kept_open: Sequence[int] = ()) -> None:
        """Create a client.

        on_ended:  called with the folder and the executor's pid when an attempt has ended but its executor has not.
                   Returns whether the executor may run another attempt.
        kept_open: descriptors of this process that the launcher and its executors inherit.
        """
        self._on_ended, self._kept_open = on_ended, kept_open
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._abandoned: list[subprocess.Popen[bytes]] = []
        self._pending: deque[asyncio.Future[int]] = deque()  # answers come in the order of the requests
        self._received = b""
        self._unsent = bytearray()
        self._is_sending = False
        self._failed_starts = 0

    async def fork(self, folder: str, redacted: Sequence[str] = (), *, sandboxed: bool = False) -> int:
        """Let an executor run the attempt in `folder` and return its pid.

        Raises RetryLater when the launcher died, and GiveUp when several in a row could not start.

        redacted:  values that the attempt redacts in its output, besides its own secrets.
        sandboxed: whether the attempt has a sandbox.
        """
        try:
            return await self._fork(folder, redacted, sandboxed=sandboxed)
        except RetryLater as error:
            if self._failed_starts < MOST_FAILED_STARTS:
                raise
            advice = "see the engine's log, and restart the engine if its installation has changed"
            raise GiveUp(FailedCode.INTERNAL, f"the engine can start no agents: {error}; {advice}") from error

    async def _fork(self, folder: str, redacted: Sequence[str], *, sandboxed: bool) -> int:
        if self._socket is None:
            try:
                self._spawn()
            except OSError as error:
                self._failed_starts += error.errno not in _SHORTAGES
                raise RetryLater(f"the launcher cannot be started: {error.filename}: {error.strerror}") from error
        asked = self._socket
        try:
            async with asyncio.timeout(SPAWN_SECONDS):
                return await self._ask({"folder": folder, "sandboxed": sandboxed, "redacted": redacted})
        except TimeoutError as error:
            if self._socket is asked:  # otherwise another caller has abandoned it already
                self._abandon("the launcher does not answer")
            raise RetryLater("the launcher does not answer") from error

    async def _ask(self, request: dict[str, Any]) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending.append(answer)
        self._send(request)
        try:
            return await answer
        finally:
            answer.cancel()  # an answer that comes later is dropped

    def _send(self, message: dict[str, Any]) -> None:
        """Send a message after all earlier ones: at once, or when the launcher has read more."""
        self._unsent += json.dumps(message).encode() + b"\n"
        if not self._is_sending:
            self._send_rest()

    def _send_rest(self) -> None:
        assert self._socket is not None
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._abandon("the launcher died")
            return
        if bool(self._unsent) != self._is_sending:
            self._is_sending = bool(self._unsent)
            loop = asyncio.get_running_loop()
            if self._is_sending:
                loop.add_writer(self._socket, self._send_rest)
            else:
                loop.remove_writer(self._socket)

    def close(self) -> None:
        """Disconnect from the launcher. The launcher ends after its last executor."""
        self._disconnect()
        for process in filter(None, (*self._abandoned, self._process)):
            process.poll()
            process.returncode = process.returncode or 0  # it may live on; Popen would warn
        self._process, self._abandoned = None, []

    def _disconnect(self) -> None:
        if self._socket is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None

    def _spawn(self) -> None:
        self._abandoned = [process for process in self._abandoned if process.poll() is None]  # those that have ended
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        with theirs:
            try:
                self._process = _start_launcher([theirs.fileno(), *self._kept_open])
            except OSError:
                ours.close()
                raise
        self._failed_starts += 1  # until it answers
        self._socket, self._received = ours, b""
        self._unsent, self._is_sending = bytearray(), False
        asyncio.get_running_loop().add_reader(ours, self._read_answers)

    def _read_answers(self) -> None:
        assert self._socket is not None
        with suppress(BlockingIOError):
            data = b""
            with suppress(ConnectionResetError):
                data = self._socket.recv(65536)
            if not data:
                self._abandon("the launcher died")
                return
            self._failed_starts = 0
            *lines, self._received = (self._received + data).split(b"\n")
            for message in map(json.loads, lines):
                if "ended" in message:
                    # Later, since the task that has requested the executor may have to be resumed first.
                    asyncio.get_running_loop().call_soon(self._end, message["folder"], message["ended"])
                else:
                    _resolve(self._pending.popleft(), message)

    def _end(self, folder: str, executor: int) -> None:
        decision = {"executor": executor, "reuse": self._on_ended(folder, executor)}
        if self._socket is not None:
            self._send(decision)

    def _abandon(self, reason: str) -> None:
        """Disconnect from a failed launcher. An executor that it still starts competes for the claim like any other."""
        log.error("launcher abandoned", reason=reason)
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)  # a stopped process would never end
            self._abandoned.append(self._process)
            self._process = None
        self._disconnect()
        while self._pending:
            _resolve(self._pending.popleft(), {"error": reason})


def _start_launcher(inherited: Sequence[int]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "labrats.executor.launcher", *map(str, inherited)],
        pass_fds=inherited,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C in the engine's terminal must not reach the executors
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(Path.home()),  # for the login of the engine's user, who may be missing in /etc/passwd
            "LANG": "C.UTF-8",
            **_certificates(),
        },
        cwd="/",
    )


def _certificates() -> dict[str, str]:
    """Return the variables with which the operator has chosen certificates of servers, for the key proxy."""
    return {name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}


def _resolve(waiting: asyncio.Future[int], answer: dict[str, Any]) -> None:
    if waiting.done():
        return  # the caller was cancelled
    if "pid" in answer:
        waiting.set_result(answer["pid"])
    else:
        waiting.set_exception(RetryLater(f"the launcher started no executor: {answer['error']}"))
