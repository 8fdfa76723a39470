"""An engine that is killed between two steps: before or after its requests to GitHub and its writes to the store."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import RetryLater
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.record import Metadata, Resource
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from tests.fakes.store import MemoryStore
from tests.support.github import APP_ID, APP_KEY_PEM, GitHubStandIn
from tests.support.github.calls import Call

R = TypeVar("R", bound=Resource)

MOST_SECONDS: Final = 180.0
"""A generous timeout of all engines together: by chance, there may be dozens of them."""


@dataclass(frozen=True)
class Step:
    """A request to GitHub or a write to the store. subject: the request, or the resource that is written."""

    subject: Call | Resource
    is_done: bool = False


class Kills(Protocol):
    """The choice of the steps at which engines are killed."""

    def begin(self) -> None:
        """Begin with the next engine."""

    def hits(self, step: Step) -> bool:
        """Return whether the engine is killed at this step."""


@dataclass
class RandomKills:
    """Kills each engine at a random step. most_steps: number of steps after which it is killed at the latest."""

    chance: random.Random
    most_steps: int
    _left: int = 0

    def begin(self) -> None:
        self._left = self.chance.randrange(1, self.most_steps)

    def hits(self, step: Step) -> bool:
        self._left -= 1
        return self._left == 0


@dataclass
class KillsAfterEffects:
    """Kills an engine after each effect of a request, once: it has acted, and does not know that any more."""

    _known: set[str] = field(default_factory=set)

    def begin(self) -> None:
        pass

    def hits(self, step: Step) -> bool:
        effect = _effect_of(step.subject) if step.is_done else None
        if effect is None or effect in self._known:
            return False
        self._known.add(effect)
        return True


def _effect_of(subject: Call | Resource) -> str | None:
    """Return the identity of a step that carries out a request or answers it; None for other steps."""
    match subject:
        case Job() if subject.phase is Phase.PENDING or subject.status.cancel_requested_at:
            return f"{subject.name} {subject.phase} {subject.status.attempts}"
        case ConfigMap():
            return subject.name
        case Call(method="POST", template=template, body=dict(body)) if template.startswith("/repos/"):
            return None if "labrats:report" in body.get("body", "") else f"{subject.path} {body}"
    return None


class SteppedStore(MemoryStore):
    """A store that calls `on_step` before and after each write, if it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.on_step: Callable[[Step], Awaitable[None]] | None = None

    async def create(self, resource: R, parts: Sequence[Resource] = ()) -> R:
        await self._step(Step(resource))
        created = await super().create(resource, parts)
        await self._step(Step(created, is_done=True))
        return created

    async def update(self, resource: R) -> R:
        await self._step(Step(resource))
        updated = await super().update(resource)
        await self._step(Step(updated, is_done=True))
        return updated

    async def _step(self, step: Step) -> None:
        if self.on_step:
            await self.on_step(step)


@dataclass
class Life:
    """The life of one engine, until a kill or its end."""

    engine: "asyncio.Task[None]"
    kills: Kills
    is_over: bool = False

    def see(self, step: Step) -> None:
        if not self.is_over and self.kills.hits(step):
            self.is_over = True
            self.engine.cancel()

    async def see_write(self, step: Step) -> None:
        """Look at a step of the store. A killed engine does not go on after it, and writes nothing as it ends."""
        self.see(step)
        if self.is_over:
            raise asyncio.CancelledError


async def run_with_kills(
    github: GitHubStandIn, store: SteppedStore, kills: Kills, run: Callable[[], Coroutine[Any, Any, None]]
) -> int:
    """Kill `run`, start it again, and so on until it ends by itself. Return the number of kills."""
    killed, loop = 0, asyncio.get_running_loop()
    async with asyncio.timeout(MOST_SECONDS):
        while True:
            kills.begin()
            life = Life(asyncio.create_task(run()), kills)

            def see_call(is_done: bool, number: int, life: Life = life) -> None:
                loop.call_soon_threadsafe(life.see, Step(github.calls[number - 1], is_done))

            github.before_call, github.after_call = partial(see_call, False), partial(see_call, True)
            store.on_step = life.see_write
            with suppress(asyncio.CancelledError):
                await life.engine
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError  # by the timeout, which is no kill
            life.is_over = True
            github.before_call = github.after_call = store.on_step = None
            if not life.engine.cancelled():
                return killed
            killed += 1


async def run_with_lost_answers(store: SteppedStore, kills: Kills, run: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Lose the answers of the store to the writes that `kills` chooses. Return their number.

    Other than after a kill, the rest of the engine goes on until the write is tried again.
    """
    lost = 0

    async def lose(step: Step) -> None:
        nonlocal lost
        if not isinstance(step.subject, Call) and kills.hits(step):
            lost += 1
            raise RetryLater("the answer was lost", delay_seconds=0.5)

    store.on_step = lose
    async with asyncio.timeout(MOST_SECONDS):
        await run()
    store.on_step = None
    return lost


async def add_source(store: SteppedStore) -> WebhookSource:
    """Store a webhook source whose credentials are those of the stand-in's App."""
    await store.create(Secret(metadata=Metadata(name="app"), data={"appId": APP_ID, "privateKey": APP_KEY_PEM}))
    spec = WebhookSourceSpec(type="github", credentials_ref="app")
    return await store.create(WebhookSource(metadata=Metadata(name="github"), spec=spec))
