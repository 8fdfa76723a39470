"""Stores and runners with faults: slow, late or failing calls, by chance or on request."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from labrats.model.attempt_name import AttemptName
from labrats.model.errors import LabratsError, RetryLater
from labrats.model.record import Resource
from labrats.model.redaction import Redactor
from labrats.ports import Attempt, AttemptState, Change, Changed, Deleted, OutputTail, Place, Runner, Store
from tests.fakes.runner import MemoryRunner

R = TypeVar("R", bound=Resource)
T = TypeVar("T")


@dataclass
class Trouble:
    """Random faults of calls. failure_rate: share of failing calls. Half of them fail after the operation is done."""

    chance: random.Random
    failure_rate: float = 0.05
    call_seconds: float = 0.02
    watch_seconds: float = 0.5

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Perform the operation, with delays. May raise RetryLater before or after it."""
        await self._wait(self.call_seconds)
        self._perhaps_fail()
        try:
            answer = await operation()
        except LabratsError:
            await self._wait(self.call_seconds)
            raise
        await self._wait(self.call_seconds)
        self._perhaps_fail()
        return answer

    async def delay(self) -> None:
        """Delay a change before a watcher receives it."""
        await self._wait(self.watch_seconds)

    async def _wait(self, mean_seconds: float) -> None:
        await asyncio.sleep(self.chance.expovariate(1 / mean_seconds))

    def _perhaps_fail(self) -> None:
        if self.chance.random() < self.failure_rate / 2:
            raise RetryLater("unreachable for the moment", delay_seconds=self.chance.random())


class TroubledStore:
    """A Store whose calls have random faults. As on a cluster, `get_many` waits for nothing.

    It returns what the last watch of the kind has reported.
    """

    def __init__(self, store: Store, trouble: Trouble) -> None:
        self._store, self._trouble = store, trouble
        self._reported: dict[tuple[str, str], Any] = {}

    async def get(self, kind: type[R], name: str) -> R:
        return await self._trouble.call(lambda: self._store.get(kind, name))

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        return [self._reported[kind.kind(), name] for name in names if (kind.kind(), name) in self._reported]

    async def list(self, kind: type[R], labels: Mapping[str, str] | None = None) -> list[R]:
        return await self._trouble.call(lambda: self._store.list(kind, labels))

    async def create(self, resource: R, parts: Sequence[Resource] = ()) -> R:
        return await self._trouble.call(lambda: self._store.create(resource, parts))

    async def update(self, resource: R) -> R:
        return await self._trouble.call(lambda: self._store.update(resource))

    async def delete(self, kind: type[R], name: str, resource_version: str | None = None) -> None:
        await self._trouble.call(lambda: self._store.delete(kind, name, resource_version))

    @property
    def identity(self) -> str:
        return self._store.identity

    async def watch(self, kind: type[R], *, after: int = 0, unsettled_only: bool = False) -> AsyncIterator[Change[R]]:
        async for change in self._store.watch(kind, after=after, unsettled_only=unsettled_only):
            await self._delay(kind)
            match change:
                case Changed(resource):
                    self._reported[resource.kind(), resource.name] = resource
                case Deleted(resource):
                    self._reported.pop((resource.kind(), resource.name), None)
            yield change

    async def _delay(self, kind: type[Resource]) -> None:
        await self._trouble.delay()

    def silent_seconds(self, kind: type[Resource]) -> float:
        return self._store.silent_seconds(kind)


class TroubledRunner:
    """A Runner whose calls have random faults."""

    def __init__(self, runner: Runner, trouble: Trouble) -> None:
        self._runner, self._trouble = runner, trouble
        self.isolation, self.network_problem = runner.isolation, runner.network_problem
        self.untrusted_network_problem = runner.untrusted_network_problem

    async def start(self, attempt: Attempt) -> None:
        await self._trouble.call(lambda: self._runner.start(attempt))

    async def find(self, name: AttemptName) -> AttemptState:
        return await self._trouble.call(lambda: self._runner.find(name))

    async def stop(self, name: AttemptName) -> None:
        await self._trouble.call(lambda: self._runner.stop(name))

    async def kill(self, name: AttemptName) -> None:
        await self._trouble.call(lambda: self._runner.kill(name))

    async def watch(self) -> AsyncIterator[AttemptName]:
        async for name in self._runner.watch():
            await self._trouble.delay()
            yield name

    async def place(self, name: AttemptName) -> Place:
        return await self._runner.place(name)

    async def tail(self, name: AttemptName) -> OutputTail:
        return await self._trouble.call(lambda: self._runner.tail(name))

    async def activity(self, name: AttemptName) -> str | None:
        return await self._trouble.call(lambda: self._runner.activity(name))

    def read(self, name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        return self._runner.read(name, after_seq, follow=follow)

    async def result(self, name: AttemptName) -> Any:
        return await self._trouble.call(lambda: self._runner.result(name))

    async def patch(self, name: AttemptName) -> BinaryIO:
        return await self._trouble.call(lambda: self._runner.patch(name))

    async def changes_so_far(self, name: AttemptName) -> BinaryIO:
        return await self._trouble.call(lambda: self._runner.changes_so_far(name))

    async def bundle(self, name: AttemptName) -> BinaryIO:
        return await self._trouble.call(lambda: self._runner.bundle(name))

    async def publication(self, name: AttemptName) -> bytes:
        return await self._trouble.call(lambda: self._runner.publication(name))

    async def workspaces(self) -> list[AttemptName]:
        return await self._trouble.call(self._runner.workspaces)

    async def workspace_bytes(self, name: AttemptName) -> int:
        return await self._trouble.call(lambda: self._runner.workspace_bytes(name))

    async def redact(self, name: AttemptName, redactor: Redactor) -> None:
        await self._trouble.call(lambda: self._runner.redact(name, redactor))

    async def remove_output(self, name: AttemptName) -> int:
        return await self._trouble.call(lambda: self._runner.remove_output(name))

    async def retained(self) -> AsyncGenerator[list[AttemptName]]:
        batches = aiter(self._runner.retained())
        while names := await self._trouble.call(lambda: anext(batches, None)):
            yield names

    async def remove(self, name: AttemptName, *, keep_output: bool = False) -> None:
        await self._trouble.call(lambda: self._runner.remove(name, keep_output=keep_output))


class FaultyStore(TroubledStore):
    """A Store with faults on request.

    faulty:    name of the failing call.
    held_back: kind whose changes are delayed.
    """

    faulty = ""
    held_back: type[Resource] | None = None

    def __init__(self, store: Store) -> None:
        no_trouble = Trouble(random.Random(1), failure_rate=0, call_seconds=1e-6, watch_seconds=1e-6)
        super().__init__(store, no_trouble)

    async def _delay(self, kind: type[Resource]) -> None:
        await super()._delay(kind)
        while self.held_back is kind:
            await asyncio.sleep(1)

    async def get(self, kind: type[R], name: str) -> R:
        self._reach("get")
        return await super().get(kind, name)

    async def update(self, resource: R) -> R:
        self._reach("update")
        return await super().update(resource)

    def _reach(self, call: str) -> None:
        if call == self.faulty:
            raise RetryLater(f"the store or runner is unreachable: {call}")


class UnreachableRunner(MemoryRunner):
    """A Runner of which one call fails on request. unreachable: name of that call."""

    unreachable = ""

    async def start(self, attempt: Attempt) -> None:
        self._reach("start")
        await super().start(attempt)

    async def find(self, name: AttemptName) -> AttemptState:
        self._reach("find")
        return await super().find(name)

    async def stop(self, name: AttemptName) -> None:
        self._reach("stop")
        await super().stop(name)

    async def kill(self, name: AttemptName) -> None:
        self._reach("kill")
        await super().kill(name)

    def _reach(self, call: str) -> None:
        if call == self.unreachable:
            raise RetryLater(f"the store or runner is unreachable: {call}")
