"""Sees every attempt through: waits for its start, copies its output, and writes down how it ended once it has.

For the one engine that leads. Another that does the same for a moment does no harm (see files.py).
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import JobObject, PodObject
from labrats.backends.kubernetes.claims import Claims
from labrats.backends.kubernetes.collector import collect
from labrats.backends.kubernetes.failures import (
    AttemptFailure,
    text_is_missing,
    why_it_cannot_start,
    why_it_ended,
    why_it_has_not_started,
    why_it_was_doubled,
    why_nobody_took_over,
)
from labrats.backends.kubernetes.files import AttemptFiles, OutputCopy, in_thread
from labrats.backends.kubernetes.observed_attempt import ObservedAttempt
from labrats.backends.kubernetes.reflector import ListComplete, ObjectChanged, ObjectDeleted, Reflector
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import LabratsError, NotFound, RetryLater
from labrats.model.job import KeyReference
from labrats.model.protocol import OUTPUT_BYTES

log = structlog.get_logger()

TROUBLE_SECONDS: Final = 5.0
"""The pause after the cluster or the volume was out of reach."""


class Supervisor:
    """All attempts that the cluster has anything of. attempts: the folder on the shared volume.

    parts_seconds: how long after an attempt's start its prompt may still come.
    """

    def __init__(
        self,
        api: BatchClient,
        attempts: Path,
        claims: Claims,
        start_timeout_seconds: float,
        parts_seconds: float,
        output_bytes: int = OUTPUT_BYTES,
    ) -> None:
        self._api, self._attempts, self._claims = api, attempts, claims
        self._start_timeout, self._parts_seconds = start_timeout_seconds, parts_seconds
        self._output_bytes = output_bytes
        self._jobs, self._pods = Reflector(api.client, api.all_jobs), Reflector(api.client, api.all_pods)
        self._jobs_listed, self._pods_listed = asyncio.Event(), asyncio.Event()
        self._sights: dict[AttemptName, ObservedAttempt] = {}
        self._attended: dict[AttemptName, asyncio.Task[None]] = {}
        self._tasks = asyncio.TaskGroup()
        self._watchers: set[asyncio.Queue[AttemptName]] = set()
        self._being_ended: set[AttemptName] = set()

    async def run(self) -> None:
        """Attend until cancelled."""
        async with self._tasks as tasks:
            tasks.create_task(self._jobs.run(), name="jobs")
            tasks.create_task(self._pods.run(), name="pods")
            tasks.create_task(self._watch_jobs(), name="watch-jobs")
            tasks.create_task(self._watch_pods(), name="watch-pods")

    async def sight_of(self, name: AttemptName) -> ObservedAttempt | None:
        """An attempt that the cluster has a Job of, or that may run, whatever this engine has just done included."""
        await self._jobs_listed.wait()
        await self._pods_listed.wait()
        await self._jobs.caught_up_on(str(name))
        if job := self._jobs.get(str(name)):
            self._see(job)
        elif sight := self._sights.get(name):
            sight.job_removed()
        sight = self._sights.get(name)
        return sight if sight and (sight.job_exists or sight.living_pods) else None

    def job_written(self, job: JobObject) -> None:
        """This engine has just created this Job."""
        self._jobs.expect(job.name, job.metadata.resource_version)

    def job_deleted(self, job: JobObject) -> None:
        """This engine has just deleted this Job."""
        self._jobs.expect_removal(job.name, job.metadata.uid)

    def attend(self, name: AttemptName) -> ObservedAttempt:
        """See an attempt through from where it stands, unless that is being done or was done."""
        sight = self._sights.setdefault(name, ObservedAttempt(name))
        if name not in self._attended:
            self._begin(sight)
        return sight

    async def leave(self, name: AttemptName) -> None:
        """See an attempt through no further: when this returns, nothing of it is written any more."""
        if attending := self._attended.get(name):
            attending.cancel()
            await asyncio.wait([attending])

    async def endings(self) -> AsyncIterator[AttemptName]:
        """The names of attempts, each when its ending is written."""
        names: asyncio.Queue[AttemptName] = asyncio.Queue()
        self._watchers.add(names)
        try:
            while True:
                yield await names.get()
        finally:
            self._watchers.discard(names)

    async def _watch_jobs(self) -> None:
        async with aclosing(self._jobs.changes()) as changes:
            async for change in changes:
                match change:
                    case ObjectChanged(job):
                        self._see(job)
                    case ObjectDeleted(job):
                        if sight := self._known(job):
                            sight.job_removed()
                            self._forget_if_gone(sight)
                    case ListComplete():
                        self._jobs_listed.set()

    async def _watch_pods(self) -> None:
        async with aclosing(self._pods.changes()) as changes:
            async for change in changes:
                match change:
                    case ObjectChanged(pod):
                        # One that is over cannot bring back an attempt that was removed meanwhile.
                        if pod.attempt and not pod.is_over:
                            self.attend(pod.attempt)
                        if sight := self._known(pod):
                            sight.pod_seen(pod)
                            self._end_if_doubled(sight)
                    case ObjectDeleted(pod):
                        if sight := self._known(pod):
                            sight.pod_removed(pod)
                            self._forget_if_gone(sight)
                    case ListComplete():
                        self._pods_listed.set()

    def _known(self, found: JobObject | PodObject) -> ObservedAttempt | None:
        return self._sights.get(found.attempt) if found.attempt else None

    def _see(self, job: JobObject) -> None:
        if (name := job.attempt) is None:
            return
        sight = self._sights.get(name)
        if sight and sight.is_of_another(job) and (earlier := self._attended.get(name)):
            earlier.cancel()
            self._begin(sight, earlier)
        self.attend(name).job_seen(job)

    def _forget_if_gone(self, sight: ObservedAttempt) -> None:
        if not sight.is_known and sight.name not in self._attended:
            self._sights.pop(sight.name, None)
            self._being_ended.discard(sight.name)

    # One attempt

    def _begin(self, sight: ObservedAttempt, earlier: asyncio.Task[None] | None = None) -> None:
        """earlier: what is still being done for an earlier InferenceRequest of the name."""
        task = self._tasks.create_task(self._attend(sight, earlier), name=f"attend {sight.name}")
        self._attended[sight.name] = task

    async def _attend(self, sight: ObservedAttempt, earlier: asyncio.Task[None] | None) -> None:
        try:
            if earlier:
                try:
                    await asyncio.wait([earlier])
                finally:
                    await asyncio.wait([earlier])  # also when this one is cancelled: it may still be writing
            while not await self._has_seen_through(sight):
                await asyncio.sleep(TROUBLE_SECONDS)
        finally:
            if self._attended.get(sight.name) is asyncio.current_task():
                del self._attended[sight.name]
            self._forget_if_gone(sight)
            sight.touch()

    async def _has_seen_through(self, sight: ObservedAttempt) -> bool:
        """Do all that is left to do for an attempt. Whether that succeeded; it can be done again from the start."""
        try:
            await self._see_through(sight, AttemptFiles.of(self._attempts, sight.name))
        except (LabratsError, OSError, msgspec.MsgspecError) as error:
            log.warning("an attempt cannot be seen through yet", attempt=str(sight.name), reason=str(error))
            return False
        return True

    async def _see_through(self, sight: ObservedAttempt, files: AttemptFiles) -> None:
        if await asyncio.to_thread(files.ending):
            return
        await in_thread(files.begin, sight.owner_uid)
        await self._see_start(sight, lambda pod: pod.has_started)
        if (pod := sight.last_pod) and pod.has_started:
            await in_thread(files.note_pod, pod.name)
            await self._copy_output(sight, pod, files)
        await self._see_end(sight)
        if not files.has_begun:
            return  # removed meanwhile: its job was deleted before it had started
        await in_thread(files.conclude, why_it_ended(sight.job, sight.last_pod, job_exists=sight.job_exists))
        for names in self._watchers:
            names.put_nowait(sight.name)

    async def _copy_output(self, sight: ObservedAttempt, pod: PodObject, files: AttemptFiles) -> None:
        """Copy what its containers print, one after the other, until the terminal event or the last one's end."""
        copy = await asyncio.to_thread(OutputCopy, files, self._output_bytes)
        for container in pod.reporting:
            await self._see_start(sight, partial(_has_started, container))
            if not _has_started(container, sight.last_pod or pod):
                break
            await collect(self._api.client, self._api.log_path(pod), container, copy, sight)
            if copy.is_complete:
                break
        if copy.missing:
            log.warning("a pod's log had gaps", attempt=str(sight.name), pod=pod.name, events_missing=copy.missing)

    async def _see_start(self, sight: ObservedAttempt, has_started: Callable[[PodObject], bool]) -> None:
        """Wait until its pod `has_started`, or never will. An attempt that takes too long to start is ended."""
        now = asyncio.get_running_loop().time
        deadline, texts_due = now() + self._start_timeout, now() + self._parts_seconds
        while True:
            changed = sight.changed
            if (sight.last_pod and has_started(sight.last_pod)) or await self._is_over(sight):
                return
            failure = why_it_cannot_start(sight.last_pod) or await self._lost_holder(sight)
            if not failure and now() >= texts_due:
                failure, texts_due = await self._missing_text(sight), math.inf
            if not failure and now() >= deadline:
                failure = why_it_has_not_started(sight.last_pod, self._start_timeout)
            if failure and deadline < math.inf:
                deadline = math.inf
                with suppress(NotFound):
                    await self._api.fail_job(sight.name, failure)
            with suppress(TimeoutError):
                next_look = min(deadline, texts_due)
                async with asyncio.timeout_at(next_look if next_look < math.inf else None):
                    await changed.wait()

    async def _lost_holder(self, sight: ObservedAttempt) -> AttemptFailure | None:
        """Return why the attempt never starts, where the pod that claimed it is gone: all others are refused."""
        if not sight.refused_pods or not (holder := await asyncio.to_thread(self._claims.holder, sight.name)):
            return None
        sight.pods_found(await self._api.pods_of(str(sight.name)))
        pod = sight.pods.get(holder)
        return why_nobody_took_over(holder) if pod is None or (pod.is_over and not pod.has_started) else None

    async def _missing_text(self, sight: ObservedAttempt) -> AttemptFailure | None:
        for text in sight.last_pod.texts if sight.last_pod else ():
            keys = await self._api.keys_of_config_map(text.name)
            for item in text.items:
                if keys is None or item.key not in keys:
                    ref = KeyReference(name=text.name, key=item.key)
                    return text_is_missing(item.path, ref, has_config_map=keys is not None)
        return None

    async def _see_end(self, sight: ObservedAttempt) -> None:
        """Wait until nothing of it runs, and nothing will, for certain."""
        while True:
            changed = sight.changed
            if await self._is_over(sight):
                return
            if sight.is_abandoned and sight.name not in self._being_ended:
                self._being_ended.add(sight.name)
                with suppress(NotFound):
                    await self._api.fail_job(sight.name, why_it_ended(sight.job, sight.last_pod))
            await changed.wait()

    def _end_if_doubled(self, sight: ObservedAttempt) -> None:
        if sight.is_doubled and sight.name not in self._being_ended:
            self._being_ended.add(sight.name)
            self._tasks.create_task(self._end_doubled(sight), name=f"end doubled {sight.name}")

    async def _end_doubled(self, sight: ObservedAttempt) -> None:
        """End an attempt of which several pods act: where there is no volume, none of them could claim it."""
        failure = why_it_was_doubled(pod.name for pod in sight.pods.values() if pod.acts)
        log.error("an attempt had several pods", attempt=str(sight.name), reason=failure.reason)
        with suppress(NotFound):
            while not await self._has_failed_job(sight.name, failure):
                await asyncio.sleep(TROUBLE_SECONDS)

    async def _has_failed_job(self, name: AttemptName, failure: AttemptFailure) -> bool:
        try:
            await self._api.fail_job(name, failure)
        except RetryLater as error:
            log.warning("an attempt cannot be ended yet", attempt=str(name), reason=str(error))
            return False
        return True

    async def _is_over(self, sight: ObservedAttempt) -> bool:
        """Whether it is, for certain. The two watches lag, each by its own time, so the cluster itself is asked."""
        if not sight.job_exists:
            with suppress(NotFound):
                sight.job_seen(await self._api.get_job(sight.name))
        if not sight.makes_no_more_pods:
            return False
        sight.pods_found(await self._api.pods_of(str(sight.name)))
        return sight.is_over


def _has_started(container: str, pod: PodObject) -> bool:
    """Return whether that container of the pod runs or has run."""
    return pod.state_of(container).has_started
