"""The warm parent of local executors: `python -m labrats.executor.launcher FD`.

FD is a Unix socket to the engine. A request is one line, `{"folder": "…"}`; the launcher forks an executor for that
attempt and answers `{"folder": "…", "pid": 123}`, or `{"folder": "…", "error": "…"}` when it cannot. Having loaded
everything beforehand, it starts one in a few milliseconds. It outlives the engine until its last executor is gone.

An executor keeps its descendants together; what it leaves behind when it dies arrives here, for the launcher is a
child subreaper too. So a child that is no executor is a leftover. They are killed before an executor's end is recorded.
"""

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from labrats.executor.attempt import become_subreaper, execute
from labrats.files.plain_files import read_plain
from labrats.model.protocol import CLAIM_FILE, EXIT_FILE, OUTPUT_FILE, STDERR_FILE
from labrats.processes import ProcessId, boot_id, children, folder_mark, send_signal, take_name

_READ_BYTES: Final = 64 * 1024
_CLAIM_BYTES: Final = 256
_OUTPUT_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The launcher ends when it is no longer needed. Until then it must see its executors' ends, whatever the engine's
terminal or service manager sends to all its processes."""


class Launcher:
    """Forks executors on request and sees each to its end. One thread, asleep while there is nothing to do."""

    def __init__(self, engine: socket.socket) -> None:
        self._engine: socket.socket | None = engine
        self._unread = b""
        self._folders: dict[int, Path] = {}  # by pid, of the executors whose end is not recorded yet
        self._wakeup, self._wakeup_sender = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Until the engine is gone and every executor has ended."""
        self._wake_when_a_child_dies()
        while self._engine or self._folders:
            sources: list[int | socket.socket] = [self._wakeup, self._engine] if self._engine else [self._wakeup]
            readable, _, _ = select.select(sources, [], [])
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, _READ_BYTES)
            if self._engine in readable:
                for folder in self._requested():
                    self._start(folder)
            self._record_ends()

    def _wake_when_a_child_dies(self) -> None:
        signal.set_wakeup_fd(self._wakeup_sender, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # by default it would not reach the pipe
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def _requested(self) -> Sequence[Path]:
        """The folders of the requests that have come in. Closes the socket when there can be no more."""
        assert self._engine
        try:
            received = self._engine.recv(_READ_BYTES)
        except ConnectionError:
            received = b""
        if not received:
            self._engine.close()
            self._engine = None
        *lines, self._unread = (self._unread + received).split(b"\n")
        return [Path(msgspec.json.decode(line)["folder"]) for line in lines]

    def _start(self, folder: Path) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._answer({"folder": str(folder), "error": f"cannot fork: {error.strerror}"})
            return
        if pid == 0:
            self._become_executor(folder)
        self._folders[pid] = folder
        self._answer({"folder": str(folder), "pid": pid})

    def _answer(self, answer: dict[str, str | int]) -> None:
        if self._engine:
            with contextlib.suppress(ConnectionError):  # the engine died meanwhile; its successor finds the claim
                self._engine.sendall(msgspec.json.encode(answer) + b"\n")

    def _become_executor(self, folder: Path) -> NoReturn:
        """In the child. An error leaves it as any program's would: with a traceback, once stderr is the attempt's."""
        os.setsid()
        os.umask(0o077)
        self._forget_the_launcher()
        _redirect_output(folder)
        take_name(folder_mark(folder))
        status = execute(folder) if claim(folder) else 0
        sys.stderr.flush()
        os._exit(status)  # tearing down the interpreter costs more than a short attempt

    def _forget_the_launcher(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (*_IGNORED, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._wakeup)
        os.close(self._wakeup_sender)
        if self._engine:
            self._engine.close()

    def _record_ends(self) -> None:
        """Record and reap the executors that have died, but none while a leftover lives, for it may be theirs.

        A leftover's death wakes the launcher again, so nothing needs to wait here.
        """
        while (pid := _dead_child()) is not None:
            # Its orphans became children of ours before it was seen dead.
            if self._end_leftovers():
                return
            if folder := self._folders.pop(pid, None):  # otherwise it was a leftover, and is reaped
                _record_end(pid, folder)
                os.waitpid(pid, 0)

    def _end_leftovers(self) -> bool:
        """Kill the children that are no executors, and reap those already dead. Whether any still lives."""
        while leftovers := [pid for pid in children(os.getpid()) if pid not in self._folders]:
            for pid in leftovers:
                send_signal(pid, signal.SIGKILL)
            if any(os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in leftovers):
                return True
            # All were dead; but what they had started may have become ours since we looked.
        return False


def claim(folder: Path) -> bool:
    """Make this process the executor of the attempt in `folder`, for ever. False when it has one already."""
    mine = folder / f"{CLAIM_FILE}.{os.getpid()}"
    mine.write_text(str(ProcessId.of(os.getpid())))
    try:
        os.link(mine, folder / CLAIM_FILE)  # unlike a rename, it fails when the name is taken
    except FileExistsError:
        return False
    finally:
        mine.unlink()
    return True


def _redirect_output(folder: Path) -> None:
    for target, path, flags in (
        (0, Path(os.devnull), os.O_RDONLY),
        (1, folder / OUTPUT_FILE, _OUTPUT_FLAGS),
        (2, folder / STDERR_FILE, _OUTPUT_FLAGS),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, target)
        os.close(opened)


def _record_end(pid: int, folder: Path) -> None:
    """Write how the dead but unreaped child `pid` ended, unless the attempt is another executor's."""
    # It died before its claim, or the attempt was removed, or the disk is full, or the agent was here: the other
    # executors must not suffer.
    with contextlib.suppress(OSError):
        if read_plain(folder / CLAIM_FILE, _CLAIM_BYTES) == str(ProcessId.of(pid)).encode():
            unfinished = folder / f"{EXIT_FILE}.{pid}"
            with open(unfinished, "x") as file:
                file.write(_how_it_ended(pid))
            unfinished.replace(folder / EXIT_FILE)


def _how_it_ended(pid: int) -> str:
    end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert end is not None
    return f"exit {end.si_status}" if end.si_code == os.CLD_EXITED else f"signal {end.si_status}"


def _dead_child() -> int | None:
    """A child that is dead and not reaped, or None."""
    try:
        end = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return end.si_pid if end else None


def main() -> None:
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()  # Ctrl-C in the engine's terminal is not for the executors
    become_subreaper()
    boot_id()
    asyncio.run(asyncio.sleep(0))  # what a first event loop loads, every executor then has
    gc.collect()
    gc.freeze()
    Launcher(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
