"""Actions on many jobs, one after the other, in the background. Another engine continues those of one that stopped.

Each action is stored until an hour after its end, in a Secret like the other records of the API: its pods may write
Secrets, and watch them already. The record names the engine that works on it. An engine that has not written it for a
while has stopped, and another one takes over. If both work on it for a moment, nothing is done twice: an action
applies to a job only as long as the job is in the state that the caller saw.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Final, Literal, NamedTuple

import msgspec
import structlog
from msgspec.structs import replace

from labrats.metrics import Metrics
from labrats.model.core_resources import TYPE_LABEL, Secret
from labrats.model.errors import (
    AccessDenied,
    BecameUnreadable,
    Conflict,
    IllegalMove,
    LabratsError,
    NotFound,
    Overloaded,
    RetryLater,
)
from labrats.model.job import Job, after_cancel_request, after_retry_request
from labrats.model.record import Metadata, Record, encode
from labrats.ports import Changed, Clock, Deleted, Store, compare_and_set

log = structlog.get_logger()

ACTIONS: Final[Mapping[str, Callable[[Job, datetime, str | None], Job]]] = {
    "cancel": after_cancel_request,
    "retry": lambda job, now, _: after_retry_request(job, now),
}

SAVE_SECONDS: Final = 5.0
"""The least time between two writes of an action's progress."""

ABANDONED_SECONDS: Final = 30.0
"""Time without progress after which another engine takes an action over."""

CHECK_SECONDS: Final = 5.0
"""Time between two checks for actions of other engines that have stopped."""

TRIES: Final = 5
"""Tries for a job whose write fails although others succeed: a policy of the cluster may refuse it for good."""

RETENTION: Final = timedelta(hours=1)
"""Time for which an action that is done can be looked up."""

MOST_STORED: Final = 100
"""Actions of one owner that are stored. For a further one, the one that ended first is deleted."""

RETRY_SECONDS: Final = 5.0
"""Time after which a caller with too many actions that have not ended may try again."""

_LABELS: Final = {TYPE_LABEL: "bulk-action"}
_KEY: Final = "action"


class Target(NamedTuple):
    """A job that an action concerns. ended_at: the end of the job as the caller saw it, in seconds since 1970."""

    job_id: str
    ended_at: float | None


class BulkAction(Record):
    """An action on some jobs.

    targets: those of its jobs; none once it is done. owner: the only owner whose jobs it may change; None for all.
    done:    the number of targets that are done. changed: the number of those to which the action applied.
    worker:  the engine that works on it.
    by:      the caller who began it; None in an action that an earlier version stored.
    """

    action: Literal["cancel", "retry"]
    targets: Sequence[Target]
    owner: str | None
    done: int = 0
    changed: int = 0
    worker: str = ""
    by: str | None = None
    finished_at: datetime | None = None

    @property
    def jobs(self) -> int:
        """Number of jobs that it concerns."""
        return self.done if self.finished_at else len(self.targets)


class _Stored(NamedTuple):
    """A stored action. seen_at: the time of the event loop at which this engine learned of this version."""

    secret: Secret
    action: BulkAction
    seen_at: float

    @property
    def version(self) -> int:
        return int(self.secret.metadata.resource_version or 0)


class BulkActions:
    """The stored actions on many jobs.

    abandoned_seconds: time without progress after which this engine takes over the action of another. 0 if none runs.
    """

    def __init__(
        self, store: Store, clock: Clock, metrics: Metrics, abandoned_seconds: float = ABANDONED_SECONDS
    ) -> None:
        self._store, self._clock, self._metrics, self._abandoned_seconds = store, clock, metrics, abandoned_seconds
        self._id = token_hex(8)
        self._stored: dict[str, _Stored] = {}
        self._current: tuple[str, BulkAction] | None = None  # what this engine carries out, and how far it is
        self._changed = asyncio.Event()

    async def add(self, action: BulkAction) -> str:
        """Store the action, for this engine to carry out. Return its id. Raises Overloaded, RetryLater."""
        await self._make_room(action.owner)
        action = replace(action, worker=self._id)
        metadata = Metadata(name=f"bulk-action-{token_hex(8)}", labels=_LABELS)
        self._note(secret := await self._store.create(Secret(metadata=metadata, data=_data(action))))
        return secret.name

    async def _make_room(self, owner: str | None) -> None:
        """Delete the owner's action that ended first, if there are too many. Raises Overloaded if none has ended."""
        stored = [each for each in self._stored.values() if each.action.owner == owner]
        if len(stored) < MOST_STORED:
            return
        ended = [(each.action.finished_at, each) for each in stored if each.action.finished_at]
        if not ended:
            raise Overloaded(f"{MOST_STORED} actions on many jobs have not ended yet; try again later", RETRY_SECONDS)
        _, oldest = min(ended, key=lambda each: each[0])
        with suppress(Conflict, NotFound):  # another engine has just deleted it
            await self._remove(oldest)

    async def get(self, action_id: str) -> BulkAction:
        """Return the action. The progress of one that another engine carries out is up to SAVE_SECONDS old.

        Raises NotFound; RetryLater.
        """
        if self._current and self._current[0] == action_id:
            return self._current[1]
        if stored := self._stored.get(action_id):
            return stored.action
        with suppress(NotFound, msgspec.DecodeError):
            secret = await self._store.get(Secret, action_id)  # another engine may have just stored it
            if _is_action(secret):
                return _decoded(secret)
        raise NotFound(f"there is no action {action_id}; an action is deleted at latest an hour after its end")

    async def run(self) -> None:
        """Carry out the actions until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="bulk-actions-watch")
            tasks.create_task(self._work(), name="bulk-actions-work")

    async def _watch(self) -> None:
        async for change in self._store.watch(Secret):
            match change:
                case Changed(secret) if _is_action(secret):
                    self._note(secret)
                case Deleted(secret):
                    self._stored.pop(secret.name, None)

    def _note(self, secret: Secret) -> None:
        try:
            action = _decoded(secret)
        except msgspec.DecodeError as error:  # a person has changed it
            log.warning("bulk action invalid", secret=secret.name, reason=str(error))
            return
        stored, known = _Stored(secret, action, _now()), self._stored.get(secret.name)
        if known is None or known.version < stored.version:
            self._stored[secret.name] = stored
            self._changed.set()

    async def _work(self) -> None:
        while True:
            stored = await self._next()
            try:
                if stored.action.finished_at:
                    await self._remove(stored)
                else:
                    await self._carry_out(stored)
            except RetryLater as error:
                log.warning("bulk action postponed", reason=str(error))
                await self._clock.sleep(error.delay_seconds)
            except LabratsError as error:  # mostly, another engine has taken it over or finished it
                log.info("bulk action left to others", action=stored.action.action, reason=str(error))
                if self._stored.get(stored.secret.name) == stored:
                    del self._stored[stored.secret.name]
            finally:
                self._current = None

    async def _next(self) -> _Stored:
        """Wait for an action of this engine, of one that has stopped, or that was done long ago."""
        while True:
            self._changed.clear()
            mine = [each for each in self._stored.values() if self._may_take(each)]
            if mine:
                return min(mine, key=lambda each: (each.secret.metadata.created_at, each.secret.name))
            try:
                async with asyncio.timeout(CHECK_SECONDS if self._stored else None):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _may_take(self, stored: _Stored) -> bool:
        if stored.action.finished_at:
            return self._clock.now() - stored.action.finished_at >= RETENTION
        return stored.action.worker == self._id or _now() - stored.seen_at >= self._abandoned_seconds

    async def _carry_out(self, stored: _Stored) -> None:
        """Apply an action to the rest of its jobs. Raises Conflict once another engine works on it."""
        if stored.action.worker != self._id:
            log.info("bulk action taken over", action=stored.action.action, done=stored.action.done)
            stored = await self._save(stored, replace(stored.action, worker=self._id))
        action = stored.action
        for target in action.targets[action.done :]:
            self._current = stored.secret.name, action
            stored, changed = await self._try_to_apply(stored, action, target)
            action = replace(action, done=action.done + 1, changed=action.changed + changed)
            if _now() - stored.seen_at >= SAVE_SECONDS:
                stored = await self._save(stored, action)
        await self._save(stored, replace(action, targets=(), finished_at=self._clock.now()))
        log.info("bulk action done", action=action.action, jobs=action.jobs, changed=action.changed)

    async def _try_to_apply(self, stored: _Stored, action: BulkAction, target: Target) -> tuple[_Stored, bool]:
        """Act on one job. Return False if that is impossible, so that one job does not stop the others.

        Raises RetryLater while the store cannot be written to at all.
        """
        reason: LabratsError | None = None
        for _ in range(TRIES):
            try:
                await self._apply(action, target)
                return stored, True
            except LabratsError as error:
                reason = error
            if isinstance(reason, BecameUnreadable) or not isinstance(reason, RetryLater):
                break
            await self._clock.sleep(reason.delay_seconds)
            try:
                stored = await self._save(stored, action)
            except RetryLater:
                self._stored[stored.secret.name] = stored._replace(action=action)  # to continue from here
                raise
        log.info("job left out of a bulk action", action=action.action, job=target.job_id, reason=str(reason))
        return stored, False

    async def _remove(self, stored: _Stored) -> None:
        await self._store.delete(Secret, stored.secret.name, stored.secret.metadata.resource_version)
        self._stored.pop(stored.secret.name, None)

    async def _save(self, stored: _Stored, action: BulkAction) -> _Stored:
        self._note(await self._store.update(replace(stored.secret, data=_data(action))))
        return self._stored[stored.secret.name]

    async def _apply(self, action: BulkAction, target: Target) -> None:
        """Act on one job. Raises LabratsError if it is gone, invalid, or no longer in the state that the caller saw."""

        async def read() -> Job:
            job = await self._store.get(Job, target.job_id)
            if action.owner not in (None, job.spec.owner):
                raise AccessDenied(f"the job {job.id} belongs to another API key")
            return job

        def changed(job: Job) -> Job:
            ended = job.status.finished_at
            if (ended.timestamp() if ended else None) != target.ended_at:
                raise IllegalMove(f"the job {job.id} has ended or was retried meanwhile")
            return ACTIONS[action.action](job, self._clock.now(), action.by)

        before, job = await compare_and_set(self._store, read, changed)
        if job.ended and not before.ended:  # it was Pending; the controller counts the end of a Running one
            self._metrics.job_moved(before, job, self._clock.now())


def _is_action(secret: Secret) -> bool:
    return _LABELS.items() <= secret.metadata.labels.items()


def _decoded(secret: Secret) -> BulkAction:
    """Return the stored action. Raises msgspec.DecodeError."""
    return msgspec.json.decode(secret.data.get(_KEY, ""), type=BulkAction)


def _data(action: BulkAction) -> dict[str, str]:
    return {_KEY: encode(action).decode()}


def _now() -> float:
    return asyncio.get_running_loop().time()
