"""The parent process of local executors: `python -m labrats.executor.launcher FD [KEPT_OPEN...]`.

FD is a Unix socket to the engine. The other descriptors stay open in the launcher and its executors, and are not
passed on to other programs. Messages are lines of JSON:

- `{"folder": "…", "sandboxed": true, "redacted": ["…"]}` from the engine requests an executor for the attempt in that
  folder. `redacted` lists values to redact besides the attempt's secrets. The launcher passes the request on and
  answers, in order, `{"folder": "…", "pid": 123}`, or `{"folder": "…", "error": "…"}` if it cannot fork.
- `{"folder": "…", "ended": 123}` reports that the attempt has ended although its executor lives on. The engine answers
  `{"executor": 123, "reuse": true}`, or false if a signal for the attempt may still reach the executor.

All modules are already loaded, so that an executor starts in a few milliseconds, and one is forked ahead of need. The
launcher outlives the engine until its last executor has exited.

Executors and the launcher are child subreapers. An executor adopts its orphaned descendants; when it dies, the launcher
adopts them. Every child of the launcher that is not an executor is therefore a leftover of one. The launcher kills
leftovers before it records an executor's exit.
"""

import asyncio
import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Final, NoReturn

import msgspec

from labrats.executor.key_proxy import proxy as _proxy  # noqa: F401 - preloaded for all executors
from labrats.executor.key_proxy.connections import tls_context
from labrats.executor.worker import CONFIRMED, ENDED, Request, serve
from labrats.files.safe_paths import read_regular_file
from labrats.model.protocol import CLAIM_FILE, EXIT_FILE
from labrats.processes import (
    MAX_DESCRIPTORS,
    ProcessId,
    become_subreaper,
    become_unreadable,
    boot_id,
    children,
    send_signal,
)

MOST_IDLE: Final = 4
"""Most executors that wait for an attempt."""

IDLE_SECONDS: Final = 5.0
"""Time for which an executor that has run an attempt waits for another."""

_QUIET_SECONDS: Final = 0.1
"""Time without events after which an executor is forked ahead, so that it delays no attempt."""

_FIRST_OTHER_FILE: Final = 3
_READ_BYTES: Final = 64 * 1024
_CLAIM_BYTES: Final = 256
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that a terminal or service manager sends to all processes of the engine. The launcher must survive them to
record the exits of its executors.
"""


@dataclass
class Executor:
    """A child of the launcher that runs attempts.

    folder:      the attempt that it runs, or None.
    expires:     when it need not wait for another attempt any longer; None before its first.
    is_confined: True once it has run an attempt with a sandbox, which takes rights from it for good.
    """

    pid: int
    socket: socket.socket
    folder: Path | None = None
    expires: float | None = None
    is_confined: bool = False

    def run(self, request: Request) -> bool:
        """Let the executor run the attempt. Return False if the executor is dead."""
        if not self._send(msgspec.json.encode(request)):
            return False
        self.folder = Path(request.folder)
        self.is_confined |= request.sandboxed
        return True

    def keep(self) -> bool:
        """Let the executor wait for another attempt. Return False if the executor is dead."""
        self.expires = monotonic() + IDLE_SECONDS
        return self._send(CONFIRMED)

    def _send(self, message: bytes) -> bool:
        try:
            self.socket.send(message)
        except OSError:
            return False
        return True

    def retire(self) -> None:
        """Let the executor exit once it runs no attempt."""
        with contextlib.suppress(OSError):  # it is dead
            self.socket.shutdown(socket.SHUT_RDWR)


class Launcher:
    """Forks executors on request and records their exits, in one thread."""

    def __init__(self, engine: socket.socket, kept_open: Sequence[int] = ()) -> None:
        self._engine: socket.socket | None = engine
        self._kept_open = kept_open
        self._unread = b""
        self._executors: dict[int, Executor] = {}  # by pid, until their exit is recorded
        self._idle: list[Executor] = []
        self._wants_spare = True
        self._foreign: set[int] = set()  # leftovers of another user, which this process must not signal
        self._wakeup, self._wakeup_sender = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Run until the engine has gone and every executor has exited."""
        assert self._engine
        self._wake_when_a_child_dies()
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._clear_wakeup)
        self._selector.register(self._engine, selectors.EVENT_READ, self._read_engine)
        while self._engine or self._executors:
            events = self._selector.select(self._patience)
            for key, _ in events:
                key.data()
            self._record_exits()
            self._retire_expired()
            if not events and self._engine and self._wants_spare:
                self._fork_ahead()

    @property
    def _patience(self) -> float | None:
        """Seconds to wait for an event."""
        if self._wants_spare and self._engine:
            return _QUIET_SECONDS
        return IDLE_SECONDS if any(executor.expires for executor in self._idle) else None

    def _wake_when_a_child_dies(self) -> None:
        signal.set_wakeup_fd(self._wakeup_sender, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # without a handler the pipe would get no byte
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def _clear_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, _READ_BYTES)

    # The engine

    def _read_engine(self) -> None:
        """Handle the messages that have arrived. Retire the executors once the engine has closed the socket."""
        assert self._engine
        try:
            received = self._engine.recv(_READ_BYTES)
        except ConnectionError:
            received = b""
        *lines, self._unread = (self._unread + received).split(b"\n")
        for message in map(msgspec.json.decode, lines):
            if "folder" in message:
                self._start(msgspec.convert(message, Request))
            elif executor := self._executors.get(message["executor"]):
                self._end_use(executor, reuse=message["reuse"])
        if not received:
            self._forget_engine()

    def _forget_engine(self) -> None:
        assert self._engine
        self._selector.unregister(self._engine)
        self._engine.close()
        self._engine = None
        for executor in self._executors.values():
            if executor.folder is None:
                executor.retire()

    def _tell_engine(self, message: dict[str, str | int]) -> None:
        if self._engine:
            with contextlib.suppress(ConnectionError):  # the engine died meanwhile; the next engine finds the claim
                self._engine.sendall(msgspec.json.encode(message) + b"\n")

    # Executors

    def _start(self, request: Request) -> None:
        while executor := self._take_idle(request):
            if executor.run(request):
                break
        else:
            try:
                executor = self._fork()
            except OSError as error:
                self._tell_engine({"folder": request.folder, "error": f"cannot fork: {error.strerror}"})
                return
            executor.run(request)
        self._wants_spare = not self._idle
        self._tell_engine({"folder": request.folder, "pid": executor.pid})

    def _take_idle(self, request: Request) -> Executor | None:
        """Return the last executor that waits and can run the attempt."""
        for executor in reversed(self._idle):
            if request.sandboxed or not executor.is_confined:
                self._idle.remove(executor)
                return executor
        return None

    def _fork_ahead(self) -> None:
        self._wants_spare = False
        with contextlib.suppress(OSError):  # the next request reports it
            self._idle.append(self._fork())

    def _fork(self) -> Executor:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                raise
            if pid == 0:
                self._become_executor(theirs)
        executor = self._executors[pid] = Executor(pid, ours)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._read_executor(executor))
        return executor

    def _become_executor(self, launcher: socket.socket) -> NoReturn:
        """Turn the forked child into an executor."""
        os.setsid()
        os.umask(0o077)
        signal.set_wakeup_fd(-1)
        for number in (*_IGNORED, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        # Close everything else, also the sockets of other executors: their end must reach them.
        kept = sorted({launcher.fileno(), *self._kept_open})
        for before, after in pairwise([_FIRST_OTHER_FILE - 1, *kept, MAX_DESCRIPTORS]):
            os.closerange(before + 1, after)
        serve(launcher)

    def _read_executor(self, executor: Executor) -> None:
        try:
            message = executor.socket.recv(_READ_BYTES)
        except ConnectionError:
            message = b""
        if message != ENDED:
            self._selector.unregister(executor.socket)  # it exits
        elif executor.folder:
            folder, executor.folder = executor.folder, None
            if self._engine:
                self._tell_engine({"folder": str(folder), "ended": executor.pid})
            else:
                executor.retire()

    def _end_use(self, executor: Executor, *, reuse: bool) -> None:
        if reuse and len(self._idle) < MOST_IDLE and executor.keep():
            self._idle.append(executor)
        else:
            executor.retire()

    def _retire_expired(self) -> None:
        now = monotonic()
        for executor in [each for each in self._idle if each.expires and each.expires <= now]:
            self._idle.remove(executor)
            executor.retire()
        self._wants_spare = self._wants_spare or not self._idle

    def _record_exits(self) -> None:
        """Record and reap the executors that have exited, but none while a leftover is alive, since it may be theirs.

        The death of the leftover wakes the launcher again, so that this function need not wait.
        """
        while (pid := _dead_child()) is not None:
            # This process adopted the orphans of `pid` before it could see that `pid` is dead.
            if self._kill_leftovers():
                return
            if executor := self._executors.pop(pid, None):
                self._forget(executor)
                if executor.folder:
                    _record_exit(pid, executor.folder)
                os.waitpid(pid, 0)
            elif pid in self._foreign:
                self._foreign.remove(pid)
                os.waitpid(pid, 0)
            # otherwise it was a leftover, already reaped

    def _forget(self, executor: Executor) -> None:
        if executor in self._idle:
            self._idle.remove(executor)
        if executor.socket in self._selector.get_map():
            self._selector.unregister(executor.socket)
        executor.socket.close()

    def _kill_leftovers(self) -> bool:
        """Kill the children that are not executors, and reap the dead ones. Return whether one is still alive.

        A process that became root by itself, such as a service that an agent has started by sudo, stays.
        """
        while leftovers := [pid for pid in children(os.getpid()) if pid not in self._executors.keys() | self._foreign]:
            self._foreign |= {pid for pid in leftovers if not send_signal(pid, signal.SIGKILL)}
            if any(os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in leftovers if pid not in self._foreign):
                return True
            # All are dead, but this process may have adopted their children in the meantime.
        return False


def _record_exit(pid: int, folder: Path) -> None:
    """Write the exit of the dead but unreaped child `pid`, unless another executor has claimed the attempt."""
    # A failure must not affect the other executors: the child may have died before its claim, the attempt may have been
    # removed, the disk may be full, or the agent may have changed the folder.
    with contextlib.suppress(OSError):
        if read_regular_file(folder / CLAIM_FILE, _CLAIM_BYTES) == str(ProcessId.of(pid)).encode():
            unfinished = folder / f"{EXIT_FILE}.{pid}"
            with open(unfinished, "x") as file:
                file.write(_describe_exit(pid))
            unfinished.replace(folder / EXIT_FILE)


def _describe_exit(pid: int) -> str:
    result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert result is not None
    return f"exit {result.si_status}" if result.si_code == os.CLD_EXITED else f"signal {result.si_status}"


def _dead_child() -> int | None:
    """Return the pid of a child that is dead but not reaped, or None."""
    try:
        result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return result.si_pid if result else None


def main() -> None:
    with contextlib.suppress(PermissionError):  # this process already leads a session
        os.setsid()  # Ctrl-C in the engine's terminal must not reach the executors
    become_subreaper()
    become_unreadable()
    boot_id()
    tls_context()  # reading the system's certificates takes longer than a short attempt
    asyncio.run(asyncio.sleep(0))  # preload the modules of a first event loop for all executors
    gc.collect()
    gc.freeze()
    engine, *kept_open = map(int, sys.argv[1:])
    for descriptor in kept_open:
        os.set_inheritable(descriptor, False)
    Launcher(socket.socket(fileno=engine), kept_open).run()


if __name__ == "__main__":
    main()
