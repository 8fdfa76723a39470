"""An in-memory Runner that plays the scripts of the mock provider, in the time of the event loop."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from signal import Signals
from typing import Any, BinaryIO, Final, Self, TypeVar

from msgspec import convert, to_builtins

from labrats.files.attempt_output import OUTPUT_REMOVED
from labrats.model.activity import activity_of
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import GiveUp, Invalid, NotFound
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.job import STATUS_LOG_BYTES, STATUS_LOG_LINES, FailedCode, Usage
from labrats.model.mock_script import (
    Action,
    Consume,
    Die,
    Exit,
    Fail,
    Fork,
    Hang,
    IgnoreSignals,
    Log,
    OnAttempt,
    OnRepair,
    SetResult,
    Sleep,
    Step,
    Write,
    parse_script,
)
from labrats.model.network import Network
from labrats.model.protocol import (
    LINE_BYTES,
    RESULT_FILE,
    AnyEvent,
    ErrorEvent,
    LogEvent,
    ResultEvent,
    UsageEvent,
)
from labrats.model.publication import PUBLICATION_PATH, parse_publication, rejected_publication
from labrats.model.record import encode
from labrats.model.redaction import Redactor
from labrats.ports import Alive, Attempt, AttemptState, Clock, Gone, NotStarted, OutputTail, Place, Store, SystemClock

E = TypeVar("E", bound=AnyEvent)

DEFAULT_SCRIPT: Final[Sequence[Step]] = (Log("mock: done"), SetResult("done"))


class MemoryRunner:
    """A Runner (labrats/ports.py) for unit tests. Every call yields to other tasks first, as a real one does."""

    def __init__(self, store: Store, machine: "MemoryMachine") -> None:
        self._store, self._machine = store, machine
        self.isolation = IsolationLevels((Isolation.PROCESS, Isolation.SANDBOX), Isolation.SANDBOX)

    def network_problem(self, network: Network | None = None) -> str | None:
        return None

    def untrusted_network_problem(self) -> str | None:
        return None

    async def start(self, attempt: Attempt) -> None:
        await self._check_prompt(attempt)
        if attempt.name not in self._machine.executors:
            self._machine.launch(attempt)

    async def find(self, name: AttemptName) -> AttemptState:
        await asyncio.sleep(0)
        executor = self._machine.executors.get(name)
        return (executor.gone or Alive()) if executor else NotStarted()

    async def stop(self, name: AttemptName) -> None:
        await asyncio.sleep(0)
        if executor := self._machine.executors.get(name):
            executor.stop()

    async def kill(self, name: AttemptName) -> None:
        await asyncio.sleep(0)
        self._machine.kill(name)

    async def watch(self) -> AsyncIterator[AttemptName]:
        names: asyncio.Queue[AttemptName] = asyncio.Queue()
        self._machine.watchers.append(names)
        try:
            while True:
                yield await names.get()
        finally:
            self._machine.watchers.remove(names)

    async def place(self, name: AttemptName) -> Place:
        return Place()

    async def tail(self, name: AttemptName) -> OutputTail:
        await asyncio.sleep(0)
        executor = self._machine.executors.get(name)
        return executor.tail() if executor else OutputTail()

    async def activity(self, name: AttemptName) -> str | None:
        await asyncio.sleep(0)
        executor = self._machine.executors.get(name)
        events = reversed(executor.events) if executor else ()
        return next((activity for event in events if (activity := activity_of(event))), None)

    async def read(self, name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        while True:
            changed = self._machine.changed
            executor = self._machine.executors.get(name)
            if batch := [event for event in executor.events if event.seq > after_seq] if executor else []:
                yield b"".join(encode(event) + b"\n" for event in batch)
                after_seq = batch[-1].seq
            elif not follow or (executor and executor.gone):
                return
            else:
                await changed.wait()

    async def result(self, name: AttemptName) -> Any:
        await asyncio.sleep(0)
        executor = self._machine.executors.get(name)
        has_result = executor and executor.gone and isinstance(executor.gone.outcome, ResultEvent)
        if executor is None or not has_result or executor.lost_output:
            raise NotFound(f"the result of attempt {name} is no longer kept")
        return executor.result

    async def patch(self, name: AttemptName) -> BinaryIO:
        await asyncio.sleep(0)
        executor = self._machine.executors.get(name)
        if executor is None or not (executor.gone and executor.patch):
            raise NotFound(f"attempt {name} left no patch")
        return _opened(executor.patch)

    async def changes_so_far(self, name: AttemptName) -> BinaryIO:
        await asyncio.sleep(0)
        executor = self._machine.executors.get(name)
        if executor is None or not executor.patch:
            raise NotFound(f"attempt {name} has changed no file so far")
        return _opened(executor.patch)

    async def bundle(self, name: AttemptName) -> BinaryIO:
        await asyncio.sleep(0)
        executor = self._machine.executors.get(name)
        if executor is None or not (executor.gone and executor.bundle):
            raise NotFound(f"attempt {name} left no bundle")
        return _opened(executor.bundle)

    async def publication(self, name: AttemptName) -> bytes:
        await asyncio.sleep(0)
        executor = self._machine.executors.get(name)
        if executor is None or not (executor.gone and executor.publication):
            raise NotFound(f"attempt {name} left no publication")
        return executor.publication

    async def workspaces(self) -> list[AttemptName]:
        await asyncio.sleep(0)
        return [name for name, executor in self._machine.executors.items() if executor.has_workspace]

    async def workspace_bytes(self, name: AttemptName) -> int:
        await asyncio.sleep(0)
        executor = self._machine.executors.get(name)
        return executor.workspace_bytes if executor and executor.has_workspace else 0

    async def redact(self, name: AttemptName, redactor: Redactor) -> None:
        await asyncio.sleep(0)
        if executor := self._machine.executors.get(name):
            executor.redact(redactor)

    async def remove_output(self, name: AttemptName) -> int:
        await asyncio.sleep(0)
        executor = self._machine.executors.get(name)
        return executor.remove_output() if executor else 0

    async def retained(self) -> AsyncGenerator[list[AttemptName]]:
        await asyncio.sleep(0)
        yield list(self._machine.executors)

    async def remove(self, name: AttemptName, *, keep_output: bool = False) -> None:
        await asyncio.sleep(0)
        if keep_output and name in self._machine.executors:
            self._machine.executors[name].has_workspace = False
        elif not keep_output:
            self._machine.executors.pop(name, None)

    async def _check_prompt(self, attempt: Attempt) -> None:
        await asyncio.sleep(0)
        if reference := attempt.job.spec.prompt_ref:
            try:
                await self._store.get(ConfigMap, reference.name)
            except NotFound as error:
                raise GiveUp(FailedCode.INTERNAL, "the job's prompt is missing") from error


class MemoryMachine:
    """A machine on which the attempts of MemoryRunners run. Like processes, they outlive their runner.

    An async context manager. Leaving it ends all attempts.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.executors: dict[AttemptName, MemoryExecutor] = {}
        self.watchers: list[asyncio.Queue[AttemptName]] = []
        self.changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [executor.task for executor in self.executors.values() if executor.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def launch(self, attempt: Attempt) -> None:
        executor = self.executors[attempt.name] = MemoryExecutor(attempt.name, self, self.clock.now())
        executor.task = asyncio.create_task(executor.run(list(_actions_of(attempt))), name=str(attempt.name))
        self.notify(attempt.name)
        executor.task.add_done_callback(lambda _: executor.end(_death("was killed by signal 15 (SIGTERM)")))

    def kill(self, name: AttemptName) -> None:
        """End the executor of that name and all its children. If there is none, it can never start."""
        executor = self.executors.setdefault(name, MemoryExecutor(name, self))
        executor.end(_death("was killed by signal 9 (SIGKILL)"))
        if executor.task:
            executor.task.cancel()

    def notify(self, name: AttemptName) -> None:
        for names in self.watchers:
            names.put_nowait(name)
        self.wake_readers()

    def wake_readers(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass
class MemoryExecutor:
    """One attempt. children: number of processes it left running. started_at: None if it never started."""

    name: AttemptName
    machine: MemoryMachine
    started_at: datetime | None = None
    ended_at: datetime | None = None
    task: asyncio.Task[None] | None = None
    events: list[AnyEvent] = field(default_factory=list)
    gone: Gone | None = None
    result: Any = None
    patch: bytes = b""
    bundle: bytes = b""
    publication: bytes = b""
    usage: Usage = field(default_factory=Usage)
    children: int = 0
    handles_signals: bool = True
    has_workspace: bool = False
    workspace_bytes: int = 4096
    output_bytes: int = 8192
    lost_output: bool = False

    async def run(self, actions: Sequence[Action]) -> None:
        try:
            await asyncio.sleep(0)
            self.has_workspace = True
            for action in actions:
                await self._play(action)
        except _Ended as ending:
            self.end(ending.gone)
        except asyncio.CancelledError:
            self._emit_last(ErrorEvent, code=FailedCode.AGENT_ERROR, message="stopped on request")
        else:
            fits = len(encode([self.result])) < LINE_BYTES // 2
            self._emit_last(ResultEvent, **({"result": self.result} if fits else {"file": RESULT_FILE}))

    def stop(self) -> None:
        if self.task and self.handles_signals:
            self.task.cancel()

    def end(self, gone: Gone) -> None:
        """Record the end of the attempt. Later calls change nothing."""
        if self.gone is None:
            self.children = 0
            self.ended_at = self.machine.clock.now()
            self.gone = replace(gone, tail=self.tail())
            self.machine.notify(self.name)

    def redact(self, redactor: Redactor) -> None:
        def redacted(event: E) -> E:
            return convert(redactor.redact_value(to_builtins(event)), type(event))

        self.events[:] = map(redacted, self.events)
        self.result = redactor.redact_value(self.result)
        self.patch = redactor.redact(self.patch.decode()).encode()
        self.publication = redactor.redact(self.publication.decode()).encode()
        if self.gone:
            outcome = self.gone.outcome and redacted(self.gone.outcome)
            self.gone = replace(self.gone, outcome=outcome, tail=self.tail())

    def remove_output(self) -> int:
        if self.lost_output:
            return 0
        freed = self.output_bytes - 4096
        ends = [event for event in self.events if isinstance(event, ResultEvent | ErrorEvent)]
        self.events.clear()
        self._emit(LogEvent, text=OUTPUT_REMOVED)
        self.events += ends
        self.patch = self.bundle = self.publication = b""
        self.output_bytes, self.lost_output = 4096, True
        self.gone = self.gone and replace(self.gone, tail=self.tail())
        return freed

    def tail(self) -> OutputTail:
        logs: list[str] = []
        room = STATUS_LOG_BYTES
        for text in reversed([event.text for event in self.events if isinstance(event, LogEvent)]):
            room -= len(text.encode())
            if room < 0 or len(logs) == STATUS_LOG_LINES:
                break
            logs.insert(0, text)
        return OutputTail(tuple(logs), self.usage, last_seq=self.events[-1].seq if self.events else 0)

    async def _play(self, action: Action) -> None:
        match action:
            case Log(text, times, every_ms):
                for count in range(1, times + 1):
                    await asyncio.sleep(every_ms / 1000 if count > 1 else 0)
                    self._emit(LogEvent, text=text.replace("{n}", str(count)))
            case Sleep(milliseconds):
                await asyncio.sleep(milliseconds / 1000)
            case Consume(amount):
                self.usage += amount.as_usage()
                self._emit(UsageEvent, usage=self.usage)
            case SetResult(result):
                self.result = result
            case Fail(reason):
                event = self._emit(ErrorEvent, code=FailedCode.AGENT_ERROR, message=reason, usage=self.usage)
                raise _Ended(Gone(event))
            case Exit(number):
                raise _Ended(_death(f"exited with code {number}"))
            case Die(number):
                raise _Ended(_death(f"was killed by signal {number} ({Signals(number).name})"))
            case Hang():
                await asyncio.Event().wait()
            case IgnoreSignals():
                self.handles_signals = False
            case Write(file) if file.path == PUBLICATION_PATH:
                self.publication = file.text.encode()
                try:
                    parse_publication(self.publication)
                except Invalid as error:
                    self.publication = rejected_publication(str(error))
            case Write(file):
                new = "".join(f"+{line}\n" for line in file.text.splitlines())
                header = f"diff --git a/{file.path} b/{file.path}\n--- /dev/null\n+++ b/{file.path}\n"
                self.patch += f"{header}{new}".encode()
            case Fork():
                self.children += 1

    def _emit_last(self, kind: type[ResultEvent] | type[ErrorEvent], **fields: Any) -> None:
        if self.gone is None:
            self.end(Gone(self._emit(kind, usage=self.usage, **fields)))

    def _emit(self, kind: type[E], **fields: Any) -> E:
        event = kind(seq=len(self.events) + 1, at=self.machine.clock.now(), **fields)
        self.events.append(event)
        self.machine.wake_readers()
        return event


class _Ended(Exception):
    """Raised by a step of the script that ends the attempt."""

    def __init__(self, gone: Gone) -> None:
        super().__init__()
        self.gone = gone


def _actions_of(attempt: Attempt) -> Iterator[Action]:
    """Yield the actions of the job's script for this attempt."""
    script = parse_script(attempt.job.spec.metadata)
    if session := attempt.earlier_session:
        yield Log(f"[starting over: attempt {session.attempt} had a session, but its workspace no longer exists]")
    for step in DEFAULT_SCRIPT if script is None else script:
        match step:
            case OnAttempt(number=number, steps=actions):
                if number == attempt.job.status.attempts:
                    yield from actions
            case OnRepair():  # this runner checks no results
                pass
            case _:
                yield step


def _death(how: str) -> Gone:
    return Gone(None, FailedCode.EXECUTOR_DIED, f"the executor {how} without an outcome")


def _opened(content: bytes) -> BinaryIO:
    """Return an open file with this content."""
    file = os.fdopen(os.memfd_create("content"), "w+b")
    file.write(content)
    file.seek(0)
    return file
