"""The feed of changes for dashboards: jobs and kinds of resources that have changed, collected for a moment."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from secrets import token_hex
from time import monotonic
from typing import Any, Final

import apsw
import structlog
from msgspec import Raw

from labrats.api.activities import Activities
from labrats.api.auth.keys import ApiKeyIndex
from labrats.api.auth.notifier import Notifier
from labrats.api.job_items import JobItems
from labrats.index.catalog import Catalog
from labrats.index.jobs import IndexedJob, JobIndex
from labrats.model.ai_model import AiModel
from labrats.model.caller import Caller
from labrats.model.errors import RetryLater
from labrats.model.record import encode
from labrats.ports import Changed, Deleted, Store

log = structlog.get_logger()

COLLECT_SECONDS: Final = 0.25
"""Time for which changes are collected in one frame."""

MOST_JOBS: Final = 100
"""Changed jobs of one frame. If more have changed, the reader has to read its lists again."""

KEPT_FRAMES: Final = 240
"""Frames from which a reader that was cut off can resume: those of a busy minute."""

RETRY_SECONDS: Final = 1.0
"""Pause after the store or the index could not be read."""

LINGER_SECONDS: Final = 30.0
"""Time for which changes are collected although nobody reads them, for readers that were cut off."""

KINDS: Final = {
    "AiAgent": "agents",
    "AiInstruction": "instructions",
    "AiConfig": "config",
    "WebhookSource": "webhook-sources",
    "AiModel": "ai-models",
}
"""The names of the kinds of resources in the feed, as in the paths of the API."""


@dataclass(frozen=True)
class Frame:
    """The changes of a moment. jobs, gone: items of changed jobs and ids of deleted ones, each with its owner.

    activities: the new activity of a job, and the job's owner, by its id.
    many: true if more jobs than MOST_JOBS have changed, which are then left out.
    """

    number: int
    kinds: list[str]
    counts: dict[str, int]
    jobs: list[tuple[str, Raw]] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)
    activities: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    many: bool = False

    @cached_property
    def for_admins(self) -> bytes:
        """The JSON for callers that see all jobs."""
        return self._json(None, self.counts, self.kinds)

    def for_owner(self, owner: str, counts: dict[str, int]) -> bytes | None:
        """Return the JSON for a caller that sees only its own jobs; None if none of them has changed."""
        owners = {each for each, _ in (*self.jobs, *self.gone, *self.activities.values())}
        return self._json(owner, counts, []) if owner in owners or self.many else None

    def _json(self, owner: str | None, counts: dict[str, int], kinds: list[str]) -> bytes:
        """Return the JSON of the changes of an owner's jobs, or of all jobs."""
        if self.many:
            return encode({"many": True, "kinds": kinds, "counts": counts})
        items = [item for each, item in self.jobs if owner in (None, each)]
        gone = [job_id for each, job_id in self.gone if owner in (None, each)]
        activities = {job_id: text for job_id, (each, text) in self.activities.items() if owner in (None, each)}
        changes = {"jobs": items, "gone": gone, "kinds": kinds, "counts": counts}
        return encode(changes | ({"activities": activities} if activities else {}))


class ChangeFeed:
    """The latest changes of all jobs and resources. `run` collects them while somebody reads, and a little longer."""

    def __init__(
        self, job_index: JobIndex, job_items: JobItems, activities: Activities, catalog: Catalog, api_keys: ApiKeyIndex
    ) -> None:
        self._job_index, self._job_items, self._activities = job_index, job_items, activities
        self._catalog, self._api_keys = catalog, api_keys
        self._id = token_hex(4)
        self._frames: deque[Frame] = deque(maxlen=KEPT_FRAMES)
        self._last_number = 0
        self._jobs: dict[str, str] = {}  # ids of changed jobs, and their owners
        self._gone: dict[str, str] = {}
        self._changed_activities: dict[str, tuple[str, str]] = {}
        self._kinds: set[str] = set()
        self._changed = asyncio.Event()
        self._published = Notifier()
        self._readers = 0
        self._unread_since: float | None = None

    # Collection

    async def run(self, store: Store) -> None:
        """Collect changes until cancelled."""
        self._job_index.on_change, self._catalog.on_change = self._job_changed, self._kind_changed
        self._activities.on_change, self._activities.has_readers = self._activity_changed, lambda: self._readers > 0
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_ai_models(store), name="change-feed-models")
            tasks.create_task(self._follow_api_keys(), name="change-feed-keys")
            tasks.create_task(self._publish(), name="change-feed")

    async def _follow_ai_models(self, store: Store) -> None:
        async for change in store.watch(AiModel):
            if isinstance(change, Changed | Deleted):
                self._kind_changed(AiModel.kind())

    async def _follow_api_keys(self) -> None:
        while True:
            await self._api_keys.changes.next.wait()
            self._add_kind("api-keys")

    def _job_changed(self, job_id: str, owner: str, exists: bool) -> None:
        if not self._is_read:
            return
        (self._gone if exists else self._jobs).pop(job_id, None)
        (self._jobs if exists else self._gone)[job_id] = owner
        self._changed.set()

    def _activity_changed(self, job_id: str, owner: str, activity: str) -> None:
        if self._is_read:
            self._changed_activities[job_id] = (owner, activity)
            self._changed.set()

    def _kind_changed(self, kind: str) -> None:
        self._add_kind(KINDS[kind])

    def _add_kind(self, name: str) -> None:
        if self._is_read:
            self._kinds.add(name)
            self._changed.set()

    @property
    def _is_read(self) -> bool:
        """True while changes are collected. A reader that comes later cannot resume."""
        if self._readers:
            return True
        if self._unread_since is not None and monotonic() - self._unread_since > LINGER_SECONDS:
            self._unread_since = None
            self._id = token_hex(4)
            self._frames.clear()
        return self._unread_since is not None

    async def _publish(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(COLLECT_SECONDS)
            self._changed.clear()
            jobs, gone, kinds = self._jobs, self._gone, self._kinds
            self._jobs, self._gone, self._kinds = {}, {}, set()
            activities, self._changed_activities = self._changed_activities, {}
            try:
                frame = await self._frame(jobs, gone, kinds, activities)
            except (RetryLater, apsw.Error) as error:
                log.warning("changes not published yet", reason=str(error))
                self._jobs, self._gone, self._kinds = jobs | self._jobs, gone | self._gone, kinds | self._kinds
                self._changed_activities = activities | self._changed_activities
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._last_number = frame.number
                self._frames.append(frame)
                self._published.notify()

    async def _frame(
        self,
        jobs: Mapping[str, str],
        gone: Mapping[str, str],
        kinds: Collection[str],
        activities: Mapping[str, tuple[str, str]],
    ) -> Frame:
        counts, many = self._job_index.counts_by_status(), len(jobs) + len(gone) > MOST_JOBS
        frame = Frame(self._last_number + 1, sorted(kinds), counts, activities=activities, many=many)
        if not frame.many:
            for job_id, owner in jobs.items():
                frame.jobs.extend((owner, item) for item in await self._item(job_id))
            frame.gone.extend((owner, job_id) for job_id, owner in gone.items())
        return frame

    async def _item(self, job_id: str) -> list[Raw]:
        version = self._job_index.version_of(job_id)
        return await self._job_items.of([IndexedJob(job_id, version)], with_result=False) if version else []

    # Readers

    async def read(self, caller: Caller, last_id: str | None) -> AsyncGenerator[bytes]:
        """Yield frames of server-sent events: first where the reader stands, then each change that it may see."""
        self._readers += 1
        try:
            position = self._position(last_id)
            if position is None:
                position = self._last_number
                greeting: dict[str, Any] = {"counts": self._counts_of(caller)}
                yield self._sse(position, encode({"reset": True} | greeting if last_id else greeting))
            while True:
                published = self._published.next
                for frame in [each for each in self._frames if each.number > position]:
                    if frame.number > position + 1:  # the reader was too slow
                        yield self._sse(self._last_number, encode({"reset": True, "counts": self._counts_of(caller)}))
                        position = self._last_number
                        break
                    position = frame.number
                    data = frame.for_admins if caller.sees_all else frame.for_owner(caller.id, self._counts_of(caller))
                    if data:
                        yield self._sse(position, data)
                if position == self._last_number:
                    await published.wait()
        finally:
            self._readers -= 1
            if not self._readers:
                self._unread_since = monotonic()

    def current_id(self) -> str:
        """Return the id from which a reader gets every change from now on, if it begins within LINGER_SECONDS."""
        if not self._is_read or not self._readers:
            self._unread_since = monotonic()
        return f"{self._id}-{self._last_number}"

    def _position(self, last_id: str | None) -> int | None:
        """Return the number of the last frame that the reader has; None if it is unknown here, or no longer kept."""
        feed, _, number = (last_id or "").partition("-")
        if feed != self._id or not number.isdecimal() or not number.isascii() or len(number) > 12:
            return None
        oldest = self._frames[0].number if self._frames else self._last_number + 1
        return int(number) if oldest - 1 <= int(number) <= self._last_number else None

    def _counts_of(self, caller: Caller) -> dict[str, int]:
        return self._job_index.counts_by_status(None if caller.sees_all else caller.id)

    def _sse(self, number: int, data: bytes) -> bytes:
        return b"id: %s-%d\ndata: %s\n\n" % (self._id.encode(), number, data)
