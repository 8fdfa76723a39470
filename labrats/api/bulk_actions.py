"""Actions on many jobs, one after the other, in the background of the engine that got the request.

An action ends with its engine. Its progress is stored until an hour after its end, in a Secret like the other records
of the API, so that each API pod of a cluster can answer it.
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
from labrats.ports import Clock, Store, compare_and_set

log = structlog.get_logger()

ACTIONS: Final[Mapping[str, Callable[[Job, datetime, str | None], Job]]] = {
    "cancel": after_cancel_request,
    "retry": lambda job, now, _: after_retry_request(job, now),
}

SAVE_SECONDS: Final = 5.0
"""The least time between two writes of the progress."""

INTERRUPTED_SECONDS: Final = 60.0
"""Time without a write after which the engine of an action has stopped."""

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
    """An action on some jobs, and its progress.

    jobs: the number of jobs that it concerns. owner: the only owner whose jobs it may change; None for all.
    done: the number of jobs that are done. changed: the number of those to which it applied.
    by:   the caller who began it.
    """

    action: Literal["cancel", "retry"]
    jobs: int
    owner: str | None
    by: str | None = None
    done: int = 0
    changed: int = 0
    saved_at: datetime | None = None
    finished_at: datetime | None = None


class BulkActions:
    """The actions on many jobs.

    interrupted_seconds: time without a write after which the engine of an action counts as stopped. 0 if there is no
    other engine.
    """

    def __init__(
        self, store: Store, clock: Clock, metrics: Metrics, interrupted_seconds: float = INTERRUPTED_SECONDS
    ) -> None:
        self._store, self._clock, self._metrics = store, clock, metrics
        self._interrupted_after = timedelta(seconds=interrupted_seconds)
        self._queue = asyncio.Queue[tuple[str, Sequence[Target]]]()
        self._unfinished: dict[str, BulkAction] = {}
        self._secrets: dict[str, Secret] = {}

    async def add(self, action: BulkAction, targets: Sequence[Target]) -> str:
        """Begin the action. Return its id. Raises Overloaded, RetryLater."""
        await self._make_room(action.owner)
        action = replace(action, saved_at=self._clock.now())
        metadata = Metadata(name=f"bulk-action-{token_hex(8)}", labels=_LABELS)
        secret = await self._store.create(Secret(metadata=metadata, data=_data(action)))
        self._unfinished[secret.name], self._secrets[secret.name] = action, secret
        self._queue.put_nowait((secret.name, targets))
        return secret.name

    async def _make_room(self, owner: str | None) -> None:
        """Delete old actions, and the owner's action that ended first if there are too many.

        Raises Overloaded if none of the owner's actions has ended.
        """
        count, ended = 0, list[tuple[datetime, Secret]]()
        for secret in await self._store.list(Secret, _LABELS):
            action = _decoded(secret)
            ended_at = self._end_of(secret, action)
            if ended_at and self._clock.now() - ended_at >= RETENTION:
                await self._delete(secret)
            elif action and action.owner == owner:
                count += 1
                ended += [(ended_at, secret)] if ended_at else []
        if count < MOST_STORED:
            return
        if not ended:
            raise Overloaded(f"{MOST_STORED} actions on many jobs have not ended yet; try again later", RETRY_SECONDS)
        await self._delete(min(ended, key=lambda each: each[0])[1])

    async def _delete(self, secret: Secret) -> None:
        with suppress(Conflict, NotFound):  # another engine has just deleted it
            await self._store.delete(Secret, secret.name, secret.metadata.resource_version)

    def _end_of(self, secret: Secret, action: BulkAction | None) -> datetime | None:
        """Return the time at which an action was done or interrupted. None while it is carried out."""
        if action is None or action.saved_at is None:  # another version has stored it
            return secret.metadata.created_at
        is_running = secret.name in self._unfinished or self._clock.now() - action.saved_at < self._interrupted_after
        return action.finished_at or (None if is_running else action.saved_at)

    async def get(self, action_id: str) -> BulkAction:
        """Return the action. The progress of one that another engine carries out is up to SAVE_SECONDS old.

        Raises NotFound; RetryLater.
        """
        if own := self._unfinished.get(action_id):
            return own
        action, ended_at = None, None
        with suppress(NotFound):
            secret = await self._store.get(Secret, action_id)
            action = _decoded(secret) if _LABELS.items() <= secret.metadata.labels.items() else None
            ended_at = self._end_of(secret, action)
        if action is None or (ended_at and self._clock.now() - ended_at >= RETENTION):
            raise NotFound(f"there is no action {action_id}; an action is deleted at latest an hour after its end")
        if ended_at and not action.finished_at:
            raise NotFound(f"the action {action_id} ended when its engine stopped; send it again for the rest")
        return action

    async def run(self) -> None:
        """Carry out the actions until cancelled."""
        while True:
            name, targets = await self._queue.get()
            try:
                await self._carry_out(name, targets)
            except LabratsError as error:
                log.warning("bulk action stopped", action=name, reason=str(error))
            del self._unfinished[name], self._secrets[name]

    async def _carry_out(self, name: str, targets: Sequence[Target]) -> None:
        """Apply an action to its jobs. Raises LabratsError if its end cannot be stored, since its record is gone."""
        for target in targets:
            changed = await self._try_to_apply(name, target)
            action = self._unfinished[name]
            self._unfinished[name] = replace(action, done=action.done + 1, changed=action.changed + changed)
            await self._save_all()
        self._unfinished[name] = action = replace(self._unfinished[name], finished_at=self._clock.now())
        await self._save(name)
        log.info("bulk action done", action=action.action, jobs=action.jobs, changed=action.changed)

    async def _try_to_apply(self, name: str, target: Target) -> bool:
        """Act on one job. Return False if that is impossible, so that one job does not stop the others."""
        reason: LabratsError | None = None
        for _ in range(TRIES):
            try:
                await self._apply(self._unfinished[name], target)
                return True
            except LabratsError as error:
                reason = error
            if isinstance(reason, BecameUnreadable) or not isinstance(reason, RetryLater):
                break
            await self._clock.sleep(reason.delay_seconds)
            await self._save(name)  # waits while nothing can be written
        log.info("job left out of a bulk action", action=name, job=target.job_id, reason=str(reason))
        return False

    async def _save_all(self) -> None:
        """Store the progress of the actions of this engine that has not been written for a while."""
        for name, action in list(self._unfinished.items()):
            if action.saved_at and (self._clock.now() - action.saved_at).total_seconds() >= SAVE_SECONDS:
                with suppress(LabratsError):  # a person has deleted it; nothing but its progress is lost
                    await self._save(name)

    async def _save(self, name: str) -> None:
        """Store the progress of an action, as soon as the store can be written. Raises LabratsError."""
        while True:
            action = replace(self._unfinished[name], saved_at=self._clock.now())
            try:
                secret = await self._store.update(replace(self._secrets[name], data=_data(action)))
            except RetryLater as error:
                log.warning("bulk action postponed", reason=str(error))
                await self._clock.sleep(error.delay_seconds)
            else:
                self._unfinished[name], self._secrets[name] = action, secret
                return

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


def _decoded(secret: Secret) -> BulkAction | None:
    """Return the stored action; None if another version has stored it, or a person has changed it."""
    try:
        return msgspec.json.decode(secret.data.get(_KEY, ""), type=BulkAction)
    except msgspec.DecodeError:
        return None


def _data(action: BulkAction) -> dict[str, str]:
    return {_KEY: encode(action).decode()}
