"""Attempts as Jobs of a cluster, known by their names; what they say is kept on the shared volume."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import structlog

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import JOB_LABEL, JobObject
from labrats.backends.kubernetes.claims import CLAIMS_FOLDER, Claims
from labrats.backends.kubernetes.client import REFUSED_DELAY_SECONDS, ApiClient, ApiServerRefusal
from labrats.backends.kubernetes.codec import resource_type
from labrats.backends.kubernetes.failures import (
    BY_THE_CLUSTER,
    ENDED_BY_ENGINE,
    NEVER_STARTED,
    AttemptFailure,
    what_keeps_it_from_starting,
    why_it_was_refused,
)
from labrats.backends.kubernetes.files import SPARE_BYTES, AttemptFiles
from labrats.backends.kubernetes.observed_attempt import ObservedAttempt
from labrats.backends.kubernetes.output_poll import OutputPoll
from labrats.backends.kubernetes.pod import PodCredentials, PodSettings, attempt_job, placeholder_job
from labrats.backends.kubernetes.supervisor import Supervisor
from labrats.files.attempt_inputs import SecretInput, inputs_of, missing_text
from labrats.files.attempt_output import OutputReader, attempt_names, read_end, read_patch, read_result
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import ConfigMap, Secret, problem_of_credentials
from labrats.model.errors import Conflict, GiveUp, Invalid, LabratsError, NotFound, RetryLater
from labrats.model.job import FailedCode, Job
from labrats.model.protocol import ErrorEvent, ResultEvent
from labrats.ports import (
    Alive,
    Attempt,
    AttemptState,
    Changed,
    Clock,
    Deleted,
    Gone,
    NotStarted,
    OutputTail,
    Place,
    Store,
    SystemClock,
)

log = structlog.get_logger()

UNCONFIRMED_SECONDS: Final = 30.0
"""How soon to look again at an attempt whose end its node does not confirm."""

UNDER_WAY_SECONDS: Final = 60.0
"""How long a request may be under way that nobody has had an answer to: the API server gives up all others by then."""


@dataclass(frozen=True)
class KubernetesRunnerSettings:
    """namespace: where the Jobs are, and all that their pods mount. attempts: the folder on the shared volume, with the
    attempts' claims beside it.

    kill_seconds: how much longer than its grace a node that is well may take to end a pod.
    parts_seconds: how long after a job its prompt and its secrets may appear: they are created after it.
    under_way_seconds: see UNDER_WAY_SECONDS.
    labelled_credentials: whether jobs get only the Secrets that are labelled for them.
    """

    namespace: str
    attempts: Path
    pods: PodSettings
    kill_seconds: float = 25.0
    parts_seconds: float = 30.0
    under_way_seconds: float = UNDER_WAY_SECONDS
    labelled_credentials: bool = False


class KubernetesRunner:
    """Fulfils Runner.

    `run` sees attempts through. It is for the engine that leads, and whatever changes or finds attempts needs it;
    reading what they said needs only the volume.

    An attempt is Gone once its ending is written on the volume: nothing of it runs, as the cluster has confirmed, and
    all its output is there. So it stays known when its Job is no more.
    """

    def __init__(
        self, client: ApiClient, store: Store, settings: KubernetesRunnerSettings, clock: Clock | None = None
    ) -> None:
        self._store, self._settings, self._clock = store, settings, clock or SystemClock()
        self._api = BatchClient(client, settings.namespace)
        start_timeout = settings.pods.start_timeout_seconds
        self._claims = Claims(settings.attempts.with_name(CLAIMS_FOLDER))
        self._attendance = Supervisor(
            self._api,
            settings.attempts,
            self._claims,
            start_timeout,
            settings.parts_seconds,
            settings.pods.output_bytes + SPARE_BYTES,
        )
        self._output_poll = OutputPoll()
        self._unconfirmed: set[AttemptName] = set()
        self._unburied: dict[AttemptName, datetime] = {}
        self._being_killed: set[AttemptName] = set()
        self._owners: dict[str, str] = {}

    async def run(self) -> None:
        """See attempts through, and clear up after jobs that were deleted, until cancelled. Once."""
        if not self._settings.pods.data_claim:
            log.warning(
                "attempts cannot be claimed", reason="LABRATS_DATA_CLAIM names no volume that their pods could mount"
            )
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._attendance.run(), name="attendance")
            loops.create_task(self._watch_jobs(), name="watch-owners")
            loops.create_task(self._watch_endings(), name="watch-endings")

    async def start(self, attempt: Attempt) -> None:
        files, owner = self._files(attempt.name), attempt.job.metadata.uid
        if files.owner not in ("", owner):
            await self._remove_files(attempt.name)
        if files.ending():
            return
        await self._check_texts(attempt)
        manifest = attempt_job(attempt, await self._credentials(attempt), self._settings.pods)
        if self._settings.pods.data_claim:
            await asyncio.to_thread(self._claims.prepare, attempt.name)
        try:
            self._attendance.job_written(await self._api.create_job(manifest))
        except Conflict:
            await self._check_owner(attempt)
        except ApiServerRefusal:
            if not self._is_late(attempt.job):
                raise
            await self.kill(attempt.name)
            return
        except Invalid as error:
            raise GiveUp(FailedCode.INVALID, f"Kubernetes refuses the attempt's Job: {error}") from error
        await asyncio.to_thread(files.begin, owner)

    async def find(self, name: AttemptName) -> AttemptState:
        files = self._files(name)
        if self._are_of_another(files, name):
            return NotStarted()
        if ending := files.ending():
            return _gone(ending, *read_end(files.output))
        if sight := await self._attendance.sight_of(name):
            return Alive(sight.last_pod.name if sight.last_pod else None)
        if not files.has_begun:
            return NotStarted()
        self._attendance.attend(name)  # it was started, and everything of it has been deleted since
        return Alive()

    async def stop(self, name: AttemptName) -> None:
        if self._files(name).ending() or not (sight := await self._attendance.sight_of(name)):
            return
        if not sight.has_started:
            await self._fail_job(sight, what_keeps_it_from_starting(sight.last_pod) or ENDED_BY_ENGINE)
        for pod in sight.living_pods:
            if pod.has_started and pod.spec.active_deadline_seconds is None:
                with suppress(NotFound):
                    await self._api.end_pod(pod)

    async def kill(self, name: AttemptName) -> None:
        files = self._files(name)
        if self._are_of_another(files, name):
            await self._remove_files(name)
        if files.ending():
            return
        failure = None if await self._attendance.sight_of(name) else await self._bury(name)
        self._unburied.pop(name, None)
        if failure:
            await asyncio.to_thread(files.begin, self._owner_of(name))
            await asyncio.to_thread(files.conclude, failure)
            return
        await self._kill(await self._attendance.sight_of(name) or self._attendance.attend(name), files)

    async def watch(self) -> AsyncIterator[AttemptName]:
        async for name in self._attendance.endings():
            yield name

    async def place(self, name: AttemptName) -> Place:
        files = self._files(name)
        return Place(str(name), files.pod) if files.has_begun else Place()

    async def tail(self, name: AttemptName) -> OutputTail:
        return read_end(self._files(name).output)[1]

    async def read(self, name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        files = self._files(name)
        reader = OutputReader(files.output, after_seq)
        with self._output_poll.changes_in(files) if follow else nullcontext() as changed:
            while True:
                ended = changed is None or files.has_ended
                while lines := reader.read():
                    yield lines
                if ended or changed is None:
                    return
                await changed.wait()
                changed.clear()

    async def result(self, name: AttemptName) -> Any:
        files = self._files(name)
        return read_result(name, files.output, files.result)

    async def patch(self, name: AttemptName) -> bytes:
        return await asyncio.to_thread(read_patch, name, self._files(name).patch)

    async def workspaces(self) -> list[AttemptName]:
        return []  # a pod's workspace ends with the pod

    async def kept(self) -> list[AttemptName]:
        return await asyncio.to_thread(lambda: sorted({*attempt_names(self._settings.attempts), *self._claims.names()}))

    async def remove(self, name: AttemptName, *, keep_output: bool = False) -> None:
        if (sight := await self._attendance.sight_of(name)) and sight.job and sight.job_exists:
            with suppress(NotFound):
                if await self._api.delete_job(sight.job):
                    self._attendance.job_deleted(sight.job)
                    await self._attendance.sight_of(name)  # so that no news of it comes later
        if not keep_output:
            await self._remove_files(name)

    def _files(self, name: AttemptName) -> AttemptFiles:
        return AttemptFiles.of(self._settings.attempts, name)

    async def _remove_files(self, name: AttemptName) -> None:
        await self._attendance.leave(name)
        await asyncio.to_thread(self._files(name).remove)
        await asyncio.to_thread(self._claims.remove, name)

    # A person may delete a job, and create another of the same name

    def _owner_of(self, name: AttemptName) -> str:
        """The uid of the job that an attempt by this name is of; empty where there is no such job."""
        return self._owners.get(name.job_id, "")

    def _are_of_another(self, files: AttemptFiles, name: AttemptName) -> bool:
        """Whether they were left by an attempt of an earlier job that had the name."""
        owner = self._owner_of(name)
        return bool(owner) and files.owner not in ("", owner)

    async def _watch_jobs(self) -> None:
        async for change in self._store.watch(Job):
            match change:
                case Changed(job):
                    self._owners[job.id] = job.metadata.uid
                case Deleted(job):
                    self._owners.pop(job.id, None)
                    for number in range(1, job.status.attempts + 1):
                        await self._clear_up(AttemptName(job.id, number))

    async def _watch_endings(self) -> None:
        async for name in self._attendance.endings():
            await self._clear_up(name)

    async def _clear_up(self, name: AttemptName) -> None:
        """Remove what an ended attempt left whose job was deleted, which a job that cannot be read was not."""
        job_id, files = name.job_id, self._files(name)
        if job_id in self._owners or name in self._being_killed or not (files.owner and files.ending()):
            return
        try:
            await self._api.client.request("GET", resource_type(Job).path(self._settings.namespace, job_id))
        except NotFound:
            await self._remove_files(name)
        except LabratsError as error:
            log.warning("what a deleted job left could not be removed", job=job_id, reason=str(error))

    # Inputs

    async def _check_texts(self, attempt: Attempt) -> None:
        """The pod reads its texts by itself. But it would wait without a word for one that never comes."""
        if self._is_new(attempt.job):
            return
        for text in inputs_of(attempt).texts:
            found = None
            with suppress(NotFound):
                found = await self._store.get(ConfigMap, text.ref.name)
            if found is None or text.ref.key not in found.data:
                reason = missing_text(text.file, text.ref, has_config_map=found is not None)
                raise GiveUp(FailedCode.INTERNAL, reason)

    async def _credentials(self, attempt: Attempt) -> PodCredentials:
        """Return the keys of Secrets that the pod mounts."""
        mounted = [(secret, await self._secret(attempt.job, secret)) for secret in inputs_of(attempt).secrets]
        files = [(secret.used_by, (secret.name, secret.files(stored.data))) for secret, stored in mounted]
        return PodCredentials(
            repository=[each for user, each in files if user == "repository"],
            agent=[each for user, each in files if user == "agent"],
        )

    async def _secret(self, job: Job, wanted: SecretInput) -> Secret:
        """Return a Secret that the job may have. Raises GiveUp for any other."""
        try:
            secret = await self._store.get(Secret, wanted.name)
        except NotFound as error:
            if self._is_new(job):
                raise RetryLater(f"there is no Secret {wanted.name!r} yet", delay_seconds=0.2) from error
            raise GiveUp(wanted.failed_code, wanted.missing) from error
        labelled_only = self._settings.labelled_credentials
        if problem := problem_of_credentials(secret, job.metadata.uid, labelled_only=labelled_only):
            raise GiveUp(wanted.failed_code, problem)
        return secret

    def _is_new(self, job: Job) -> bool:
        """Whether what belongs to it may still be on its way."""
        return self._clock.now() - job.created_at < timedelta(seconds=self._settings.parts_seconds)

    def _is_late(self, job: Job) -> bool:
        """Whether its attempt should have started by now."""
        patience = timedelta(seconds=self._settings.pods.start_timeout_seconds)
        return job.status.started_at is not None and self._clock.now() - job.status.started_at >= patience

    # Whose Job it is

    async def _check_owner(self, attempt: Attempt) -> None:
        """The Job is there already: it must be this attempt's, or a tombstone in its place."""
        job = await self._existing_job(attempt.name)
        if not _is_ours(job):
            raise GiveUp(FailedCode.INTERNAL, f"the cluster has a Job {str(attempt.name)!r} that is none of Labrats's")
        if job.owner_uid not in ("", attempt.job.metadata.uid):
            raise RetryLater(f"the Job {str(attempt.name)!r} of an earlier job of that name is still being deleted")
        self._attendance.job_written(job)

    async def _bury(self, name: AttemptName) -> AttemptFailure | None:
        """Take the attempt's name, so that it never starts. What it failed of, then; None when it has started."""
        try:
            tombstone = placeholder_job(name, self._owner_of(name), self._settings.pods)
            self._attendance.job_written(await self._api.create_job(tombstone))
        except Conflict:
            job = await self._existing_job(name)
            if not _is_ours(job):
                return NEVER_STARTED  # and no watch of ours will ever tell of it
            self._attendance.job_written(job)
            return None
        except (ApiServerRefusal, Invalid) as refusal:
            await self._check_nothing_is_under_way(name, refusal)
            return why_it_was_refused(refusal)
        return NEVER_STARTED

    async def _check_nothing_is_under_way(self, name: AttemptName, refusal: LabratsError) -> None:
        """What is refused as an attempt is often refused as a tombstone too, by a quota or a policy. Then the ending on
        the volume is all that keeps the attempt from starting: from this engine it does, and others are fenced off.
        But an earlier request to start it must not be under way still. Raises RetryLater while that may be.
        """
        since = self._unburied.setdefault(name, self._clock.now())
        if self._clock.now() - since >= timedelta(seconds=self._settings.under_way_seconds):
            try:
                await self._api.get_job(name)
            except NotFound:
                return
        raise RetryLater(str(refusal), REFUSED_DELAY_SECONDS) from refusal

    async def _existing_job(self, name: AttemptName) -> JobObject:
        try:
            return await self._api.get_job(name)
        except NotFound as error:
            raise RetryLater(f"the Job {str(name)!r} was deleted just now") from error

    # Ending it

    async def _kill(self, sight: ObservedAttempt, files: AttemptFiles) -> None:
        """Return once it is Gone. Raises RetryLater when its node does not confirm that: it may be out of reach."""
        patience = self._settings.kill_seconds + self._settings.pods.grace_seconds
        seconds = 1.0 if sight.name in self._unconfirmed else patience
        try:
            async with asyncio.timeout(seconds):
                self._being_killed.add(sight.name)
                await self._end_for_certain(sight, files)
        except TimeoutError as error:
            self._unconfirmed.add(sight.name)
            raise RetryLater(f"no node confirms that {sight.name} has ended", UNCONFIRMED_SECONDS) from error
        finally:
            self._being_killed.discard(sight.name)
        self._unconfirmed.discard(sight.name)

    async def _end_for_certain(self, sight: ObservedAttempt, files: AttemptFiles) -> None:
        killed: set[str] = set()
        while True:
            changed = sight.changed
            for pod in sight.living_pods:
                if pod.name not in killed:
                    killed.add(pod.name)
                    with suppress(NotFound, Conflict):
                        await self._api.kill_pod(pod)
            await self._fail_job(sight)  # last: the cluster then gives the pod its whole grace, if nobody was quicker
            if files.ending():
                return
            await changed.wait()

    async def _fail_job(self, sight: ObservedAttempt, failure: AttemptFailure = ENDED_BY_ENGINE) -> None:
        if sight.job_exists and sight.job and sight.job.spec.active_deadline_seconds != 0:
            with suppress(NotFound):
                await self._api.fail_job(sight.name, failure)


def _gone(ending: AttemptFailure, outcome: ResultEvent | ErrorEvent | None, tail: OutputTail) -> Gone:
    told_to_end = isinstance(outcome, ErrorEvent) and ending.code in BY_THE_CLUSTER
    if outcome is None or told_to_end:
        return Gone(None, ending.code, ending.reason, tail)
    return Gone(outcome, tail=tail)


def _is_ours(job: JobObject) -> bool:
    return job.attempt is not None and job.metadata.labels.get(JOB_LABEL) == job.attempt.job_id
