"""A store and a runner that are slow, late and fail now and then, all as a seed has it."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from labrats.model.attempt_name import AttemptName
from labrats.model.errors import LabratsError, RetryLater
from labrats.model.record import Resource
from labrats.ports import Attempt, AttemptState, Change, OutputTail, Place, Runner, Store

R = TypeVar("R", bound=Resource)
T = TypeVar("T")


@dataclass
class Trouble:
    """What calls go through. failure_rate: of calls, half of them failing after all has been done."""

    chance: random.Random
    failure_rate: float = 0.05
    call_seconds: float = 0.02
    watch_seconds: float = 0.02

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Raises RetryLater instead of doing it, or instead of answering that it is done; the caller cannot tell."""
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
        """How much later than the change a watcher hears of it."""
        await self._wait(self.watch_seconds)

    async def _wait(self, mean_seconds: float) -> None:
        await asyncio.sleep(self.chance.expovariate(1 / mean_seconds))

    def _perhaps_fail(self) -> None:
        if self.chance.random() < self.failure_rate / 2:
            raise RetryLater("out of reach for the moment", delay_seconds=self.chance.random())


class TroubledStore:
    """A Store behind a bad line."""

    def __init__(self, store: Store, trouble: Trouble) -> None:
        self._store, self._trouble = store, trouble

    async def get(self, kind: type[R], name: str) -> R:
        return await self._trouble.call(lambda: self._store.get(kind, name))

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        return await self._trouble.call(lambda: self._store.get_many(kind, names))

    async def list(self, kind: type[R], labels: Mapping[str, str] | None = None) -> list[R]:
        return await self._trouble.call(lambda: self._store.list(kind, labels))

    async def create(self, resource: R, parts: Sequence[Resource] = ()) -> R:
        return await self._trouble.call(lambda: self._store.create(resource, parts))

    async def update(self, resource: R) -> R:
        return await self._trouble.call(lambda: self._store.update(resource))

    async def delete(self, kind: type[R], name: str, resource_version: str | None = None) -> None:
        await self._trouble.call(lambda: self._store.delete(kind, name, resource_version))

    async def watch(self, kind: type[R]) -> AsyncIterator[Change[R]]:
        async for change in self._store.watch(kind):
            await self._trouble.delay()
            yield change

    def silent_seconds(self, kind: type[Resource]) -> float:
        return self._store.silent_seconds(kind)


class TroubledRunner:
    """A Runner behind a bad line."""

    def __init__(self, runner: Runner, trouble: Trouble) -> None:
        self._runner, self._trouble = runner, trouble

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

    def read(self, name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        return self._runner.read(name, after_seq, follow=follow)

    async def result(self, name: AttemptName) -> Any:
        return await self._trouble.call(lambda: self._runner.result(name))

    async def patch(self, name: AttemptName) -> bytes:
        return await self._trouble.call(lambda: self._runner.patch(name))

    async def workspaces(self) -> list[AttemptName]:
        return await self._trouble.call(self._runner.workspaces)

    async def kept(self) -> list[AttemptName]:
        return await self._trouble.call(self._runner.kept)

    async def remove(self, name: AttemptName, *, keep_output: bool = False) -> None:
        await self._trouble.call(lambda: self._runner.remove(name, keep_output=keep_output))
