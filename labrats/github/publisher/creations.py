"""Create each object on GitHub once, although its answer may be lost and its lists lag behind its writes."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeVar

from labrats.github.client.repository import AnswerLost, RefusedByGitHub
from labrats.model.errors import RetryLater
from labrats.model.report import CreatedObject
from labrats.ports import Clock

T = TypeVar("T")

LISTED_AFTER: Final = timedelta(seconds=30)
"""Time after which GitHub's lists certainly show what was created. They lag by seconds."""


@dataclass
class Creations:
    """The objects that the engine creates for the report of a job.

    objects: the stored ones, by name, such as `check run of 0a1b2c`.
    record:  stores one, or with None removes it.
    shared:  those of other jobs, which this one may share: a sticky comment.
    """

    clock: Clock
    objects: Callable[[], Mapping[str, CreatedObject]]
    record: Callable[[str, CreatedObject | None], Awaitable[None]]
    shared: Mapping[str, CreatedObject] = field(default_factory=dict)
    listed_after: timedelta = LISTED_AFTER

    def id_of(self, name: str) -> int | None:
        """Return the id of an object; None if it is not known."""
        found = self._find(name)
        return found.id if found else None

    def require_certainty(self, name: str) -> None:
        """Raise RetryLater while GitHub may not show an object that it may have created."""
        if found := self._find(name):
            left = (found.created_at + self.listed_after - self.clock.now()).total_seconds()
            if left > 0:
                raise RetryLater(f"GitHub may not show the {name} yet, which may exist", delay_seconds=left)

    async def create(self, name: str, write: Callable[[], Awaitable[T]], id_of: Callable[[T], int]) -> T:
        """Create an object that GitHub does not show, and store its id. Raises as `write` does.

        The attempt is stored before, so that also after a kill, an object without an answer is awaited.
        """
        if self.id_of(name) is None:
            self.require_certainty(name)
        attempt = CreatedObject(created_at=self.clock.now())
        await self.record(name, attempt)
        try:
            created = await write()
        except AnswerLost:
            raise
        except (RefusedByGitHub, RetryLater):  # GitHub has created nothing
            await self.record(name, None)
            raise
        await self.record(name, CreatedObject(created_at=attempt.created_at, id=id_of(created)))
        return created

    def _find(self, name: str) -> CreatedObject | None:
        found = [each for each in (self.objects().get(name), self.shared.get(name)) if each]
        return max(found, key=lambda each: each.created_at, default=None)
