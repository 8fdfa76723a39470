"""The machines on which attempts of the Runner suite run, with methods to open runners and to disturb attempts."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol, Self

from labrats.backends.embedded.folders import Folders
from labrats.backends.embedded.runner import LocalRunner, LocalRunnerSettings
from labrats.files.attempt_inputs import TaskSettings
from labrats.model.attempt_name import AttemptName
from labrats.ports import Gone, Runner, Store
from labrats.processes import ProcessId, descendants, send_signal, with_environment
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.fakes.store import MemoryStore
from tests.support.waiting import eventually


class RunnerBackend(Protocol):
    """One machine or cluster, empty at first. keeps_workspaces: True if workspaces outlive their attempts."""

    store: Store
    keeps_workspaces: bool

    def open_runner(self) -> AbstractAsyncContextManager[Runner]:
        """Open the runner of one engine. A further call opens that of another engine, or of a restarted one."""
        ...

    def living_processes(self, name: AttemptName) -> int:
        """Return the number of living processes of the attempt: its executor and descendants, also detached ones."""
        ...

    def crash(self, name: AttemptName) -> None:
        """Kill the executor with signal 9."""
        ...

    async def crash_unseen(self, name: AttemptName) -> None:
        """Kill the executor together with everything that could report how it died."""
        ...

    def kill_helpers(self) -> None:
        """Kill the processes that run beside the executors on their behalf."""
        ...


class MemoryBackend:
    """The in-memory fake."""

    def __init__(self, machine: MemoryMachine) -> None:
        self.store: Store = MemoryStore()
        self.keeps_workspaces = True
        self._machine = machine

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        async with MemoryMachine() as machine:
            yield cls(machine)

    @asynccontextmanager
    async def open_runner(self) -> AsyncIterator[Runner]:
        yield MemoryRunner(self.store, self._machine)

    def living_processes(self, name: AttemptName) -> int:
        executor = self._machine.executors.get(name)
        return 0 if executor is None or executor.gone else 1 + executor.children

    def crash(self, name: AttemptName) -> None:
        self._machine.kill(name)

    async def crash_unseen(self, name: AttemptName) -> None:
        self._machine.executors[name].end(Gone())
        self._machine.kill(name)

    def kill_helpers(self) -> None:
        """Do nothing: there are no helpers."""


class EmbeddedBackend:
    """Real processes on this machine."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = MemoryStore()
        self.keeps_workspaces = True
        self._folders = Folders(folder / "attempts", folder / "workspaces")
        self._launchers: set[int] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[Self]:
        """Open a backend that finally kills every process that the test left."""
        backend = cls(folder)
        try:
            yield backend
        finally:
            await backend._close()

    @asynccontextmanager
    async def open_runner(self, programs: dict[str, str] | None = None) -> AsyncIterator[Runner]:
        """Open the runner of one engine. programs: agent CLIs by provider."""
        task = TaskSettings(programs=programs or {})
        settings = LocalRunnerSettings(self._folders, Path("/nowhere"), environment={}, task=task)
        async with LocalRunner(self.store, settings) as runner:
            try:
                yield runner
            finally:
                self._launchers |= set(_living_launchers())

    def living_processes(self, name: AttemptName) -> int:
        executor = self._executor(name)
        family = {executor.pid, *descendants(executor.pid)} if executor and executor.is_alive else set()
        return len(family | set(with_environment("LABRATS_ATTEMPT", str(name))))

    def crash(self, name: AttemptName) -> None:
        executor = self._executor(name)
        assert executor
        send_signal(executor.pid, signal.SIGKILL)

    async def crash_unseen(self, name: AttemptName) -> None:
        self.kill_helpers()
        self.crash(name)
        await eventually(lambda: self.living_processes(name) == 0)

    def kill_helpers(self) -> None:
        for launcher in _living_launchers():
            send_signal(launcher, signal.SIGKILL)

    async def _close(self) -> None:
        for claim in self._folders.attempts.glob("*/*/claim"):
            for pid in with_environment("LABRATS_ATTEMPT", claim.parent.name):
                send_signal(pid, signal.SIGKILL)
            if (executor := ProcessId.parse(claim.read_text())) and executor.is_alive:
                send_signal(executor.pid, signal.SIGKILL)
        await eventually(lambda: all(_is_reaped(launcher) for launcher in self._launchers))

    def _executor(self, name: AttemptName) -> ProcessId | None:
        executor = self._folders.of(name).executor()
        return executor if isinstance(executor, ProcessId) else None


def _living_launchers() -> list[int]:
    """Return the launchers that this process started. Their executors are forks with the same command line."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in map(int, children) if b"labrats.executor.launcher" in _command_line(pid)]


def _is_reaped(child: int) -> bool:
    """Return whether the process has ended. Reaps it, since the engine that started it no longer does."""
    try:
        return os.waitpid(child, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True


def _command_line(pid: int) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
