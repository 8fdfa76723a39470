"""The parent process of local executors: `python -m labrats.executor.launcher FD`.

FD is a Unix socket to the engine. A request is one line, `{"folder": "…"}`. The launcher forks an executor for that
attempt and answers `{"folder": "…", "pid": 123}`, or `{"folder": "…", "error": "…"}` if the fork fails. All modules are
already loaded, so that an executor starts in a few milliseconds. The launcher outlives the engine until its last
executor has exited.

Executors and the launcher are child subreapers. An executor adopts its orphaned descendants; when it dies, the launcher
adopts them. Every child of the launcher that is not an executor is therefore a leftover of one. The launcher kills
leftovers before it records an executor's exit.
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
from labrats.files.safe_paths import read_regular_file
from labrats.model.protocol import CLAIM_FILE, EXIT_FILE, OUTPUT_FILE, STDERR_FILE
from labrats.processes import ProcessId, boot_id, children, executor_process_name, send_signal, set_process_name

_READ_BYTES: Final = 64 * 1024
_CLAIM_BYTES: Final = 256
_OUTPUT_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that a terminal or service manager sends to all processes of the engine. The launcher must survive them to
record the exits of its executors.
"""


class Launcher:
    """Forks executors on request and records their exits, in one thread."""

    def __init__(self, engine: socket.socket) -> None:
        self._engine: socket.socket | None = engine
        self._unread = b""
        self._folders: dict[int, Path] = {}  # by pid, of the executors whose exit is not recorded yet
        self._wakeup, self._wakeup_sender = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Run until the engine has gone and every executor has exited."""
        self._wake_when_a_child_dies()
        while self._engine or self._folders:
            sources: list[int | socket.socket] = [self._wakeup, self._engine] if self._engine else [self._wakeup]
            readable, _, _ = select.select(sources, [], [])
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, _READ_BYTES)
            if self._engine in readable:
                for folder in self._read_requests():
                    self._start(folder)
            self._record_exits()

    def _wake_when_a_child_dies(self) -> None:
        signal.set_wakeup_fd(self._wakeup_sender, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # without a handler the pipe would get no byte
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def _read_requests(self) -> Sequence[Path]:
        """Return the folders of the requests that have arrived. Close the socket once the engine has closed it."""
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
            with contextlib.suppress(ConnectionError):  # the engine died meanwhile; the next engine finds the claim
                self._engine.sendall(msgspec.json.encode(answer) + b"\n")

    def _become_executor(self, folder: Path) -> NoReturn:
        """Turn the forked child into an executor. An unexpected error prints a traceback to the attempt's stderr."""
        os.setsid()
        os.umask(0o077)
        self._forget_the_launcher()
        _redirect_output(folder)
        set_process_name(executor_process_name(folder))
        status = execute(folder) if claim(folder) else 0
        sys.stderr.flush()
        os._exit(status)  # shutting down the interpreter takes longer than a short attempt

    def _forget_the_launcher(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (*_IGNORED, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._wakeup)
        os.close(self._wakeup_sender)
        if self._engine:
            self._engine.close()

    def _record_exits(self) -> None:
        """Record and reap the executors that have exited, but none while a leftover is alive, since it may be theirs.

        The death of the leftover wakes the launcher again, so that this function need not wait.
        """
        while (pid := _dead_child()) is not None:
            # This process adopted the orphans of `pid` before it could see that `pid` is dead.
            if self._kill_leftovers():
                return
            if folder := self._folders.pop(pid, None):  # otherwise it was a leftover, already reaped
                _record_exit(pid, folder)
                os.waitpid(pid, 0)

    def _kill_leftovers(self) -> bool:
        """Kill the children that are not executors, and reap the dead ones. Return whether one is still alive."""
        while leftovers := [pid for pid in children(os.getpid()) if pid not in self._folders]:
            for pid in leftovers:
                send_signal(pid, signal.SIGKILL)
            if any(os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in leftovers):
                return True
            # All are dead, but this process may have adopted their children in the meantime.
        return False


def claim(folder: Path) -> bool:
    """Make this process the only executor of the attempt in `folder`. Return False if the attempt has one already."""
    draft = folder / f"{CLAIM_FILE}.{os.getpid()}"
    draft.write_text(str(ProcessId.of(os.getpid())))
    try:
        os.link(draft, folder / CLAIM_FILE)  # unlike a rename, a link fails if the name is taken
    except FileExistsError:
        return False
    finally:
        draft.unlink()
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
    boot_id()
    asyncio.run(asyncio.sleep(0))  # preload the modules of a first event loop for all executors
    gc.collect()
    gc.freeze()
    Launcher(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
