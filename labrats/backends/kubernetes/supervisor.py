"""Supervises every attempt: waits for its start, copies its output, and records its ending.

Only the leader does so. A second engine that does the same for a moment does no harm (see files.py).
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import JobObject, PodObject
from labrats.backends.kubernetes.claims import Claims
from labrats.backends.kubernetes.client import ApiServerRefusal
from labrats.backends.kubernetes.collector import collect
from labrats.backends.kubernetes.failures import (
    AttemptFailure,
    failure_without_outcome,
    lost_claim_holder,
    permanent_start_failure,
    several_pods_acted,
    start_timed_out,
    text_was_missing,
)
from labrats.backends.kubernetes.files import AttemptFiles, OutputCopy, in_thread
from labrats.backends.kubernetes.observed_attempt import ObservedAttempt, VanishedPod
from labrats.backends.kubernetes.reflector import ListComplete, ObjectChanged, ObjectDeleted, Reflector
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import LabratsError, NotFound
from labrats.model.job import KeyReference
from labrats.model.protocol import OUTPUT_BYTES

log = structlog.get_logger()

RETRY_SECONDS: Final = 5.0
"""Pause after the cluster or the volume was out of reach."""

LINGERING_SECONDS: Final = 60.0
"""Time after the executor's end in which its pod must end. An admission webhook may have added an endless container."""

NODE_CHECK_SECONDS: Final = 5.0
"""Pause between two looks whether the node of a pod that has vanished reports."""

NODE_REPORTS: Final = 3
"""Number of different reports of a node after which it runs no pod that the cluster has removed. The first may be older
than the removal; the second may precede its next list of pods.
"""


class Supervisor:
    """The supervisor of all attempts that have a Job or a pod on the cluster.

    attempts:      folder of the attempts on the shared volume.
    parts_seconds: time after an attempt's start within which its prompt may still be created.
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
        self._observed: dict[AttemptName, ObservedAttempt] = {}
        self._supervisions: dict[AttemptName, asyncio.Task[None]] = {}
        self._starting: set[AttemptName] = set()
        self._tasks = asyncio.TaskGroup()
        self._watchers: set[asyncio.Queue[AttemptName]] = set()
        self._ending_now: set[AttemptName] = set()

    async def run(self) -> None:
        """Supervise attempts until cancelled."""
        async with self._tasks as tasks:
            tasks.create_task(self._jobs.run(), name="jobs")
            tasks.create_task(self._pods.run(), name="pods")
            tasks.create_task(self._watch_jobs(), name="watch-jobs")
            tasks.create_task(self._watch_pods(), name="watch-pods")

    async def find(self, name: AttemptName) -> ObservedAttempt | None:
        """Return the attempt if it has a Job or may run; the last writes of this engine are included."""
        await self.listed()
        await self._jobs.caught_up_on(str(name))
        if job := self._jobs.get(str(name)):
            self._update_job(job)
        elif observed := self._observed.get(name):
            observed.remove_job()
        observed = self._observed.get(name)
        return observed if observed and (observed.job_exists or observed.may_run) else None

    async def listed(self) -> None:
        """Wait until all attempts that existed at the beginning are known."""
        await self._jobs_listed.wait()
        await self._pods_listed.wait()

    def living(self) -> set[AttemptName]:
        """Return the attempts with a Job or a pod whose ending is not recorded yet, and those being started."""
        return self._supervisions.keys() | self._starting

    def expect_start(self, name: AttemptName) -> None:
        """Note that this engine is starting an attempt. The watches may report its Job much later."""
        if name not in self._supervisions:
            self._starting.add(name)

    def forget_start(self, name: AttemptName) -> None:
        """Note that the attempt has no Job and gets none."""
        self._starting.discard(name)

    def expect_job(self, job: JobObject) -> None:
        """Note that this engine has just created or read this Job: later reads must include it."""
        self._jobs.expect_version(job.name, job.metadata.resource_version)

    def expect_deletion(self, job: JobObject) -> None:
        """Note that this engine has just deleted this Job."""
        self._jobs.expect_removal(job.name, job.metadata.uid)

    def supervise(self, name: AttemptName) -> ObservedAttempt:
        """Supervise an attempt from its current state on, unless it is supervised already."""
        self._starting.discard(name)
        observed = self._observed.setdefault(name, ObservedAttempt(name))
        if name not in self._supervisions:
            self._start_supervision(observed)
        return observed

    async def stop_supervising(self, name: AttemptName) -> None:
        """Stop supervising an attempt. When this returns, none of its files is written any more."""
        self._starting.discard(name)
        if supervision := self._supervisions.get(name):
            supervision.cancel()
            await asyncio.wait([supervision])

    async def endings(self) -> AsyncIterator[AttemptName]:
        """Yield the name of each attempt when its ending has been recorded."""
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
                        self._update_job(job)
                    case ObjectDeleted(job):
                        if observed := self._known(job):
                            observed.remove_job()
                            self._forget_if_gone(observed)
                    case ListComplete():
                        self._jobs_listed.set()

    async def _watch_pods(self) -> None:
        async with aclosing(self._pods.changes()) as changes:
            async for change in changes:
                match change:
                    case ObjectChanged(pod):
                        # A pod that is over must not bring back an attempt that was removed meanwhile.
                        if pod.attempt and not pod.is_over:
                            self.supervise(pod.attempt)
                        if observed := self._known(pod):
                            observed.update_pod(pod)
                            self._end_if_doubled(observed)
                    case ObjectDeleted(pod):
                        if observed := self._known(pod):
                            observed.remove_pod(pod)
                            self._forget_if_gone(observed)
                    case ListComplete():
                        self._pods_listed.set()

    def _known(self, found: JobObject | PodObject) -> ObservedAttempt | None:
        return self._observed.get(found.attempt) if found.attempt else None

    def _update_job(self, job: JobObject) -> None:
        if (name := job.attempt) is None:
            return
        observed = self._observed.get(name)
        if observed and observed.is_of_other_owner(job) and (earlier := self._supervisions.get(name)):
            earlier.cancel()
            self._start_supervision(observed, earlier)
        self.supervise(name).update_job(job)

    def _forget_if_gone(self, observed: ObservedAttempt) -> None:
        if not observed.is_known and observed.name not in self._supervisions:
            self._observed.pop(observed.name, None)
            self._ending_now.discard(observed.name)

    # One attempt

    def _start_supervision(self, observed: ObservedAttempt, earlier: asyncio.Task[None] | None = None) -> None:
        """Start a task for the attempt. earlier: task for an earlier InferenceRequest of the same name."""
        task = self._tasks.create_task(self._run_supervision(observed, earlier), name=f"supervise {observed.name}")
        self._supervisions[observed.name] = task

    async def _run_supervision(self, observed: ObservedAttempt, earlier: asyncio.Task[None] | None) -> None:
        try:
            if earlier:
                try:
                    await asyncio.wait([earlier])
                finally:
                    await asyncio.wait(
                        [earlier]
                    )  # also if this task is cancelled: the earlier one may still be writing
            while not await self._supervise_once(observed):
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            if self._supervisions.get(observed.name) is asyncio.current_task():
                del self._supervisions[observed.name]
            self._forget_if_gone(observed)
            observed.notify_change()

    async def _supervise_once(self, observed: ObservedAttempt) -> bool:
        """Do all remaining work for an attempt. Return False if it failed and must be repeated from the start."""
        try:
            await self._supervise(observed, AttemptFiles.of(self._attempts, observed.name))
        except (LabratsError, OSError, msgspec.MsgspecError) as error:
            log.warning("supervision of an attempt failed", attempt=str(observed.name), reason=str(error))
            return False
        return True

    async def _supervise(self, observed: ObservedAttempt, files: AttemptFiles) -> None:
        if await asyncio.to_thread(files.ending):
            return
        await in_thread(files.create, observed.owner_uid)
        await self._wait_for_start(observed, lambda pod: pod.has_started, is_first=True)
        if (pod := observed.last_pod) and pod.has_started:
            await in_thread(files.record_pod, pod.name)
            await self._copy_output(observed, pod, files)
        await self._wait_for_end(observed)
        if not files.exists:
            return  # removed meanwhile, since its job was deleted before it started
        await in_thread(
            files.record_ending,
            failure_without_outcome(observed.job, observed.last_pod, job_exists=observed.job_exists),
        )
        for names in self._watchers:
            names.put_nowait(observed.name)

    async def _copy_output(self, observed: ObservedAttempt, pod: PodObject, files: AttemptFiles) -> None:
        """Copy the logs of the containers, one after the other, until the terminal event or the end of the last one."""
        copy = await asyncio.to_thread(OutputCopy, files, self._output_bytes)
        for container in pod.reporting:
            await self._wait_for_start(observed, partial(_has_started, container))
            if not _has_started(container, observed.last_pod or pod):
                break
            await collect(self._api.client, self._api.log_path(pod), container, copy, observed)
            if copy.is_complete:
                break
        if copy.missing:
            log.warning("pod log had gaps", attempt=str(observed.name), pod=pod.name, events_missing=copy.missing)

    async def _wait_for_start(
        self, observed: ObservedAttempt, has_started: Callable[[PodObject], bool], *, is_first: bool = False
    ) -> None:
        """Wait until the pod `has_started` or never will. An attempt that takes too long to start is made to fail.

        is_first: wait for the pod's first step, counted from the creation of the Job: a new leader does not begin anew.
        """
        now = asyncio.get_running_loop().time
        age = _age_of(observed.job) if is_first else 0.0
        deadline, texts_due = now() - age + self._start_timeout, now() - age + self._parts_seconds
        while True:
            changed = observed.changed
            if (observed.last_pod and has_started(observed.last_pod)) or await self._is_over(observed):
                return
            failure = permanent_start_failure(observed.last_pod) or await self._lost_holder(observed)
            if not failure and now() >= texts_due:
                failure, texts_due = await self._missing_text(observed), math.inf
            if not failure and now() >= deadline:
                failure = start_timed_out(observed.last_pod, self._start_timeout)
            if failure and deadline < math.inf:
                deadline = math.inf
                with suppress(NotFound):
                    await self._api.fail_job(observed.name, failure)
            with suppress(TimeoutError):
                next_check = min(deadline, texts_due, now() + NODE_CHECK_SECONDS if observed.vanished else math.inf)
                async with asyncio.timeout_at(next_check if next_check < math.inf else None):
                    await changed.wait()

    async def _lost_holder(self, observed: ObservedAttempt) -> AttemptFailure | None:
        """Return the failure of an attempt whose claim is held by a pod that vanished: all other pods are refused."""
        if not observed.refused_pods or not (holder := await asyncio.to_thread(self._claims.holder, observed.name)):
            return None
        observed.replace_pods(await self._api.pods_of(str(observed.name)))
        pod = observed.pods.get(holder)
        return lost_claim_holder(holder) if pod is None or (pod.is_over and not pod.has_started) else None

    async def _missing_text(self, observed: ObservedAttempt) -> AttemptFailure | None:
        """Return the failure of an attempt whose pod waits for a text that does not exist."""
        for text in observed.last_pod.texts if observed.last_pod else ():
            keys = await self._api.keys_of_config_map(text.name)
            for item in text.items:
                if keys is None or item.key not in keys:
                    ref = KeyReference(name=text.name, key=item.key)
                    return text_was_missing(item.path, ref, has_config_map=keys is not None)
        return None

    async def _wait_for_end(self, observed: ObservedAttempt) -> None:
        """Wait until nothing of the attempt runs or will run. A pod that outlives its executor is ended."""
        now = asyncio.get_running_loop().time
        end_at: float | None = None
        while True:
            changed = observed.changed
            if await self._is_over(observed):
                return
            if (pod := observed.lingering_pod) is None:
                end_at = None
            elif end_at is None:
                end_at = now() + LINGERING_SECONDS
            elif now() >= end_at:
                log.warning("pod outlives its executor", attempt=str(observed.name), pod=pod.name)
                with suppress(NotFound):
                    await self._api.end_pod(pod)
                end_at = now() + LINGERING_SECONDS
            if observed.is_abandoned and observed.name not in self._ending_now:
                self._ending_now.add(observed.name)
                with suppress(NotFound):
                    await self._api.fail_job(observed.name, failure_without_outcome(observed.job, observed.last_pod))
            with suppress(TimeoutError):
                async with asyncio.timeout_at(now() + NODE_CHECK_SECONDS if observed.vanished else end_at):
                    await changed.wait()

    def _end_if_doubled(self, observed: ObservedAttempt) -> None:
        if observed.is_doubled and observed.name not in self._ending_now:
            self._ending_now.add(observed.name)
            self._tasks.create_task(self._end_doubled(observed), name=f"end doubled {observed.name}")

    async def _end_doubled(self, observed: ObservedAttempt) -> None:
        """End an attempt that several pods run, since there is no volume on which one could claim it."""
        failure = several_pods_acted(pod.name for pod in observed.pods.values() if pod.has_acted)
        log.error("attempt had several pods", attempt=str(observed.name), reason=failure.reason)
        with suppress(NotFound):
            while not await self._has_failed_job(observed.name, failure):
                await asyncio.sleep(RETRY_SECONDS)

    async def _has_failed_job(self, name: AttemptName, failure: AttemptFailure) -> bool:
        try:
            await self._api.fail_job(name, failure)
        except NotFound:
            raise
        except LabratsError as error:
            log.warning("attempt not ended yet", attempt=str(name), reason=str(error))
            return False
        return True

    async def _is_over(self, observed: ObservedAttempt) -> bool:
        """Return whether the attempt is over. Asks the API server, since the watches of Jobs and of pods may lag."""
        if not observed.job_exists:
            with suppress(NotFound):
                observed.update_job(await self._api.get_job(observed.name))
        if not observed.creates_no_more_pods:
            return False
        observed.replace_pods(await self._api.pods_of(str(observed.name)))
        for vanished in list(observed.vanished.values()):
            if await self._has_surely_ended(vanished, observed.deadline):
                observed.note_end(vanished.pod)
        return observed.is_over

    async def _has_surely_ended(self, vanished: VanishedPod, deadline: datetime | None) -> bool:
        """Return whether a pod that has vanished runs no more. deadline: of its attempt; None if it is unknown.

        A pod that somebody deletes by force is removed at once, but its node may be out of reach and run it.
        """
        if deadline and datetime.now(UTC) >= deadline:
            return True
        try:
            report = await self._api.node_report(vanished.pod.spec.node_name)
        except ApiServerRefusal as refusal:  # as with the chart of an earlier version
            log.warning("pod has vanished, and its node cannot be asked", pod=vanished.pod.name, reason=str(refusal))
            return True
        if report is None:
            return True
        vanished.reports.add(report)
        return len(vanished.reports) >= NODE_REPORTS


def _age_of(job: JobObject | None) -> float:
    """Return the seconds since the Job was created, by the API server's clock; 0 if that is unknown."""
    if job is None or (created_at := job.metadata.creation_timestamp) is None:
        return 0.0
    return max((datetime.now(UTC) - created_at).total_seconds(), 0.0)


def _has_started(container: str, pod: PodObject) -> bool:
    """Return whether the container has started."""
    return pod.state_of(container).has_started
