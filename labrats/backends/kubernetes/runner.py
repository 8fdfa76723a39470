"""Attempts as Jobs on a cluster. Their output is stored on the shared volume."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import JOB_LABEL, JobObject
from labrats.backends.kubernetes.claims import CLAIMS_FOLDER, Claims
from labrats.backends.kubernetes.client import REFUSED_DELAY_SECONDS, ApiClient, ApiServerRefusal
from labrats.backends.kubernetes.codec import resource_type
from labrats.backends.kubernetes.egress import ANNOUNCE_SECONDS, Egress
from labrats.backends.kubernetes.failures import (
    CLUSTER_CODES,
    ENDED_BY_ENGINE,
    NEVER_STARTED,
    AttemptFailure,
    job_was_refused,
    start_failure_so_far,
)
from labrats.backends.kubernetes.files import SPARE_BYTES, AttemptFiles
from labrats.backends.kubernetes.observed_attempt import ObservedAttempt
from labrats.backends.kubernetes.output_poll import OutputPoll
from labrats.backends.kubernetes.pod import attempt_job, deadline_seconds, keeps_caches, placeholder_job
from labrats.backends.kubernetes.pod_settings import PodCredentials, PodSettings
from labrats.backends.kubernetes.pod_volumes import CACHES_FOLDER
from labrats.backends.kubernetes.supervisor import Supervisor
from labrats.files.attempt_inputs import SecretInput, inputs_of
from labrats.files.attempt_output import (
    OutputReader,
    attempt_names,
    in_batches,
    read_activity,
    read_end,
)
from labrats.files.attempt_results import AttemptResults
from labrats.files.cached_entries import shrink_caches, use_entries
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import Conflict, GiveUp, Invalid, LabratsError, NotFound, RetryLater
from labrats.model.isolation import Isolation
from labrats.model.job import FailedCode, Job, base_cache_scope, cache_scope
from labrats.model.network import Network
from labrats.model.protocol import ErrorEvent, ResultEvent
from labrats.model.provider_spec import ACP, LOCAL_PROVIDERS, provider_spec
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

UNCONFIRMED_DELAY_SECONDS: Final = 30.0
"""Delay before the next kill of an attempt whose end no node has confirmed."""

PENDING_REQUEST_SECONDS: Final = 60.0
"""Maximum time that an unanswered request can still take effect. The API server gives up any request before."""

PARTS_SECONDS: Final = 30.0
"""Time after a job's creation within which its prompt and Secrets may still be created."""


@dataclass(frozen=True)
class KubernetesRunnerSettings:
    """Settings of the runner.

    namespace:               namespace of the Jobs and of everything that their pods mount.
    attempts:                folder of the attempts on the shared volume; the claims are beside it.
    kill_seconds:            time beyond the grace period in which a healthy node ends a pod.
    parts_seconds:           see PARTS_SECONDS.
    pending_request_seconds: see PENDING_REQUEST_SECONDS.
    labelled_credentials:    True if jobs may have only Secrets that are labelled for them.
    egress_proxy:            name of the Service of the egress proxy; None without one.
    """

    namespace: str
    attempts: Path
    pods: PodSettings
    kill_seconds: float = 25.0
    parts_seconds: float = PARTS_SECONDS
    pending_request_seconds: float = PENDING_REQUEST_SECONDS
    labelled_credentials: bool = False
    egress_proxy: str | None = None

    @property
    def network_checks(self) -> Path:
        """The folder with the results of the leader's checks of the network."""
        return self.attempts.parent


class KubernetesRunner(AttemptResults):
    """The Runner for a cluster.

    `run` supervises attempts. Only the leader runs it, and all methods that change or find attempts require it. Reading
    output requires only the volume.

    An attempt is Gone once its ending is recorded on the volume: the cluster has confirmed that nothing of it runs, and
    its output is complete. So the attempt stays known after its Job was deleted.

    epoch: that of the leader. supervises: whether `run` is called. Otherwise only attempts with an ending are found.
    """

    def __init__(
        self,
        client: ApiClient,
        store: Store,
        settings: KubernetesRunnerSettings,
        clock: Clock | None = None,
        epoch: int = 0,
        *,
        supervises: bool = True,
    ) -> None:
        self._supervises = supervises
        self._store, self._settings, self._clock = store, settings, clock or SystemClock()
        self._api = BatchClient(client, settings.namespace)
        start_timeout = settings.pods.start_timeout_seconds
        self._claims = Claims(settings.attempts.with_name(CLAIMS_FOLDER))
        self._supervisor = Supervisor(
            self._api,
            settings.attempts,
            self._claims,
            start_timeout,
            settings.parts_seconds,
            settings.pods.task.output_bytes + SPARE_BYTES,
        )
        self._output_poll = OutputPoll()
        self._unconfirmed: set[AttemptName] = set()
        self._refused_since: dict[AttemptName, datetime] = {}
        self.isolation = settings.pods.isolation
        allows_untrusted = settings.pods.isolation.untrusted is Isolation.PROCESS
        self._egress = Egress(
            self._api,
            store,
            settings.egress_proxy,
            settings.network_checks,
            allows_untrusted=allows_untrusted,
            epoch=epoch,
        )
        self._being_killed: set[AttemptName] = set()
        self._owners: dict[str, str] = {}

    def network_problem(self, network: Network | None = None) -> str | None:
        return self._egress.problem(network)

    def untrusted_network_problem(self) -> str | None:
        return self._egress.problem_of_untrusted()

    async def run(self) -> None:
        """Supervise attempts, and remove the files of deleted jobs, until cancelled. May be called only once."""
        if not self._settings.pods.data_claim:
            log.warning("attempts cannot be claimed", reason="LABRATS_DATA_CLAIM is not set")
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._create_egress_key(), name="egress-key")
            if self._settings.egress_proxy:
                loops.create_task(self._announce_living_attempts(), name="living-attempts")
            loops.create_task(self._supervisor.run(), name="supervisor")
            loops.create_task(self._watch_jobs(), name="watch-owners")
            loops.create_task(self._watch_endings(), name="watch-endings")

    async def _create_egress_key(self) -> None:
        """Create the key of the egress proxy, whose pods wait for it."""
        while True:
            try:
                await self._egress.ensure_key()
                return
            except LabratsError as error:
                log.warning("key of the egress proxy not created", reason=str(error))
                await asyncio.sleep(REFUSED_DELAY_SECONDS)

    async def _announce_living_attempts(self) -> None:
        """Report the attempts that have not ended to the egress proxy, again and again: its pods may be new."""
        while True:
            await asyncio.sleep(ANNOUNCE_SECONDS)
            try:
                await self._supervisor.listed()
                await self._egress.announce(self._supervisor.living())
            except (LabratsError, OSError) as error:
                log.warning("living attempts not reported to the egress proxy", reason=str(error))

    async def start(self, attempt: Attempt) -> None:
        files, owner = self._files(attempt.name), attempt.job.metadata.uid
        if files.owner not in ("", owner):
            await self._remove_files(attempt.name)
        if files.ending():
            return
        self._supervisor.expect_start(attempt.name)
        try:
            await self._start(attempt, files)
        except GiveUp:
            self._supervisor.forget_start(attempt.name)
            raise

    async def _start(self, attempt: Attempt, files: AttemptFiles) -> None:
        await self._check_texts(attempt)
        earlier = await asyncio.to_thread(self._earlier_work, attempt)
        manifest = attempt_job(attempt, await self._credentials(attempt), self._settings.pods, earlier)
        if self._settings.pods.data_claim:
            await asyncio.to_thread(self._claims.prepare, attempt.name)
        if keeps_caches(attempt.job, self._settings.pods):
            await asyncio.to_thread(self._prepare_caches, attempt.job)
        try:
            self._supervisor.expect_job(await self._api.create_job(manifest))
        except Conflict:
            await self._check_owner(attempt)
        except ApiServerRefusal:
            if not self._is_late(attempt.job):
                raise
            await self.kill(attempt.name)
            return
        except Invalid as error:
            raise GiveUp(FailedCode.INVALID, f"the API server refuses the attempt's Job as invalid: {error}") from error
        await asyncio.to_thread(files.create, attempt.job.metadata.uid)

    async def find(self, name: AttemptName) -> AttemptState:
        files = self._files(name)
        if self._belong_to_other_job(files, name):
            return NotStarted()
        if ending := files.ending():
            return _gone(ending, *await asyncio.to_thread(read_end, files.output))
        if not self._supervises:
            return NotStarted()
        if observed := await self._supervisor.find(name):
            return Alive(observed.last_pod.name if observed.last_pod else None)
        if not files.exists:
            return NotStarted()
        self._supervisor.supervise(name)  # it was started, and its Job and pods were deleted since
        return Alive()

    async def stop(self, name: AttemptName) -> None:
        if self._files(name).ending() or not (observed := await self._supervisor.find(name)):
            return
        if not observed.has_started:
            await self._fail_job(observed, start_failure_so_far(observed.last_pod) or ENDED_BY_ENGINE)
        for pod in observed.living_pods:
            if pod.has_started and pod.spec.active_deadline_seconds is None:
                with suppress(NotFound):
                    await self._api.end_pod(pod)

    async def kill(self, name: AttemptName) -> None:
        files = self._files(name)
        if self._belong_to_other_job(files, name):
            await self._remove_files(name)
        if files.ending():
            return
        failure = None if await self._supervisor.find(name) else await self._prevent_start(name)
        self._refused_since.pop(name, None)
        if failure:
            self._supervisor.forget_start(name)
            await asyncio.to_thread(files.create, self._owner_of(name))
            await asyncio.to_thread(files.record_ending, failure)
            return
        await self._kill(await self._supervisor.find(name) or self._supervisor.supervise(name), files)

    async def watch(self) -> AsyncIterator[AttemptName]:
        async for name in self._supervisor.endings():
            yield name

    def path_of(self, name: AttemptName) -> Path:
        return self._files(name).folder

    async def place(self, name: AttemptName) -> Place:
        files = self._files(name)
        return Place(str(name), files.pod) if files.exists else Place()

    async def tail(self, name: AttemptName) -> OutputTail:
        return (await asyncio.to_thread(read_end, self._files(name).output))[1]

    async def activity(self, name: AttemptName) -> str | None:
        return await asyncio.to_thread(read_activity, self._files(name).output)  # the volume may be slow

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

    async def workspaces(self) -> list[AttemptName]:
        """List the attempts whose session is stored. The workspace itself is deleted with its pod."""
        names = attempt_names(self._settings.attempts)
        return await asyncio.to_thread(lambda: [name for name in names if self._files(name).session.is_file()])

    async def workspace_bytes(self, name: AttemptName) -> int:
        try:
            return (await asyncio.to_thread(self._files(name).session.stat)).st_size
        except FileNotFoundError:
            return 0

    def retained(self) -> AsyncIterator[list[AttemptName]]:
        return in_batches(attempt_names(self._settings.attempts, self._claims.root))

    async def remove(self, name: AttemptName, *, keep_output: bool = False) -> None:
        if (observed := await self._supervisor.find(name)) and observed.job and observed.job_exists:
            with suppress(NotFound):
                if await self._api.delete_job(observed.job):
                    self._supervisor.expect_deletion(observed.job)
                    await self._supervisor.find(name)  # returns after the watch has reported the deletion
        if keep_output:
            await asyncio.to_thread(self._files(name).session.unlink, missing_ok=True)
        else:
            await self._remove_files(name)

    def _prepare_caches(self, job: Job) -> None:
        """Create the folder of the job's cached folders, and delete the least recently used ones beyond the limit."""
        caches = self._settings.attempts.with_name(CACHES_FOLDER)
        for scope in filter(None, (cache_scope(job), base_cache_scope(job))):
            (caches / scope).mkdir(mode=0o700, parents=True, exist_ok=True)
            os.utime(caches / scope)
            use_entries(caches / scope)
        shrink_caches(caches, self._settings.pods.task.caches_bytes)

    def _earlier_work(self, attempt: Attempt) -> AttemptName | None:
        """Return the attempt from whose stored session and changes this one can continue."""
        session = attempt.earlier_session
        name = AttemptName(attempt.job.id, session.attempt) if session else attempt.continued
        if name is None or self._settings.pods.data_claim is None:
            return None
        files = self._files(name)
        return name if (files.session.is_file() if session else files.has_kept_work) else None

    def _files(self, name: AttemptName) -> AttemptFiles:
        return AttemptFiles.of(self._settings.attempts, name)

    async def _remove_files(self, name: AttemptName) -> None:
        await self._supervisor.stop_supervising(name)
        await asyncio.to_thread(self._files(name).remove)
        await asyncio.to_thread(self._claims.remove, name)

    # Jobs of the same name: a person may delete a job and create another

    def _owner_of(self, name: AttemptName) -> str:
        """Return the uid of the attempt's job; empty if there is no such job."""
        return self._owners.get(name.job_id, "")

    def _belong_to_other_job(self, files: AttemptFiles, name: AttemptName) -> bool:
        """Return whether the files belong to an earlier job of the same name."""
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
        async for name in self._supervisor.endings():
            await self._clear_up(name)

    async def _clear_up(self, name: AttemptName) -> None:
        """Remove the files of an ended attempt if its job was deleted. A job that cannot be decoded still exists."""
        job_id, files = name.job_id, self._files(name)
        if job_id in self._owners or name in self._being_killed:
            return
        try:
            if not await asyncio.to_thread(lambda: files.owner and files.ending()):
                return
            await self._api.client.request("GET", resource_type(Job).path(self._settings.namespace, job_id))
        except NotFound:
            await self._remove_files(name)
        except (LabratsError, OSError) as error:
            log.warning("files of a deleted job not removed", job=job_id, reason=str(error))

    # Inputs

    async def _check_texts(self, attempt: Attempt) -> None:
        """Raise GiveUp if a text does not exist: the pod that mounts it would wait without an error."""
        if self._is_new(attempt.job):
            return
        for text in inputs_of(attempt).texts:
            found = None
            with suppress(NotFound):
                found = await self._store.get(ConfigMap, text.ref.name)
            text.read_from(found)

    async def _credentials(self, attempt: Attempt) -> PodCredentials:
        """Return the keys of Secrets that the pod mounts."""
        mounted = [(secret, await self._secret(attempt.job, secret)) for secret in inputs_of(attempt).secrets]
        files = [(secret.used_by, (secret.name, secret.files(stored.data))) for secret, stored in mounted]
        provider = attempt.job.resolved.provider
        endpoint = attempt.ai_model.spec.endpoint if attempt.ai_model else None
        proxied = [
            (name, {key: keys[key]})
            for user, (name, keys) in files
            if user == "model" and (key := provider_spec(provider).key_to_proxy(endpoint, keys))
        ]
        with_agent = ("agent",) if proxied else ("agent", "model")  # a login cannot be proxied
        needs_filter = provider == ACP or (provider in LOCAL_PROVIDERS and self._egress.confines(attempt))
        is_keyless = needs_filter and endpoint is not None
        pods, has_proxy = self._settings.pods, bool(proxied) or is_keyless
        expires_at = int(self._clock.now().timestamp()) + deadline_seconds(attempt, pods)
        return PodCredentials(
            repository=[each for user, each in files if user == "repository"],
            agent=[each for user, each in files if user in with_agent],
            model=proxied,
            egress=await self._egress.of(attempt, expires_at, pods.task.git_addresses, has_proxy=has_proxy),
            policy_tests=await self._egress.policy_tests(attempt),
            keyless=is_keyless,
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
        if problem := wanted.problem_of(secret, job.metadata.uid, labelled_only=labelled_only):
            raise GiveUp(wanted.failed_code, problem)
        return secret

    def _is_new(self, job: Job) -> bool:
        """Return whether the job's prompt and Secrets may still be created."""
        return self._clock.now() - job.created_at < timedelta(seconds=self._settings.parts_seconds)

    def _is_late(self, job: Job) -> bool:
        """Return whether the start timeout of the job's attempt has passed."""
        timeout = timedelta(seconds=self._settings.pods.start_timeout_seconds)
        return job.status.started_at is not None and self._clock.now() - job.status.started_at >= timeout

    # Conflicts of Job names

    async def _check_owner(self, attempt: Attempt) -> None:
        """Raise an error unless the existing Job, which may be a placeholder, belongs to this attempt."""
        job = await self._existing_job(attempt.name)
        if not _is_ours(job):
            raise GiveUp(
                FailedCode.INTERNAL, f"the cluster has a Job {str(attempt.name)!r} that Labrats did not create"
            )
        if job.owner_uid not in ("", attempt.job.metadata.uid):
            raise RetryLater(f"the Job {str(attempt.name)!r} of an earlier job of the same name is still being deleted")
        self._supervisor.expect_job(job)

    async def _prevent_start(self, name: AttemptName) -> AttemptFailure | None:
        """Create a placeholder Job, so that the attempt never starts. Return its failure; None if its Job exists."""
        try:
            placeholder = placeholder_job(name, self._owner_of(name), self._settings.pods)
            self._supervisor.expect_job(await self._api.create_job(placeholder))
        except Conflict:
            job = await self._existing_job(name)
            if not _is_ours(job):
                return NEVER_STARTED  # a foreign Job, which the watches do not report
            self._supervisor.expect_job(job)
            return None
        except (ApiServerRefusal, Invalid) as refusal:
            await self._check_no_start_is_pending(name, refusal)
            return job_was_refused(refusal)
        return NEVER_STARTED

    async def _check_no_start_is_pending(self, name: AttemptName, refusal: LabratsError) -> None:
        """Raise RetryLater while an earlier request may still create the attempt's Job.

        A quota or policy that refuses the attempt's Job often refuses its placeholder, too. Then only the ending on the
        volume keeps the attempt from starting. That suffices for this engine, and other engines are fenced.
        """
        since = self._refused_since.setdefault(name, self._clock.now())
        if self._clock.now() - since >= timedelta(seconds=self._settings.pending_request_seconds):
            try:
                await self._api.get_job(name)
            except NotFound:
                return
        raise RetryLater(str(refusal), REFUSED_DELAY_SECONDS) from refusal

    async def _existing_job(self, name: AttemptName) -> JobObject:
        try:
            return await self._api.get_job(name)
        except NotFound as error:
            raise RetryLater(f"the Job {str(name)!r} was deleted meanwhile") from error

    # Killing

    async def _kill(self, observed: ObservedAttempt, files: AttemptFiles) -> None:
        """Kill an attempt and wait until it is Gone. Raises RetryLater if its node does not confirm that in time."""
        timeout = self._settings.kill_seconds + self._settings.pods.grace_seconds
        seconds = 1.0 if observed.name in self._unconfirmed else timeout
        try:
            async with asyncio.timeout(seconds):
                self._being_killed.add(observed.name)
                await self._kill_until_gone(observed, files)
        except TimeoutError as error:
            self._unconfirmed.add(observed.name)
            raise RetryLater(f"no node has confirmed that {observed.name} ended", UNCONFIRMED_DELAY_SECONDS) from error
        finally:
            self._being_killed.discard(observed.name)
        self._unconfirmed.discard(observed.name)

    async def _kill_until_gone(self, observed: ObservedAttempt, files: AttemptFiles) -> None:
        killed: set[str] = set()
        while True:
            changed = observed.changed
            for pod in observed.living_pods:
                if pod.name not in killed:
                    killed.add(pod.name)
                    with suppress(NotFound, Conflict):
                        await self._api.kill_pod(pod)
            await self._fail_job(observed)  # after the kills: it ends pods with their full grace period
            if files.ending():
                return
            await changed.wait()

    async def _fail_job(self, observed: ObservedAttempt, failure: AttemptFailure = ENDED_BY_ENGINE) -> None:
        if observed.job_exists and observed.job and observed.job.spec.active_deadline_seconds != 0:
            with suppress(NotFound):
                await self._api.fail_job(observed.name, failure)


def _gone(ending: AttemptFailure, outcome: ResultEvent | ErrorEvent | None, tail: OutputTail) -> Gone:
    was_stopped = isinstance(outcome, ErrorEvent) and ending.code in CLUSTER_CODES
    if outcome is None or was_stopped:
        return Gone(None, ending.code, ending.reason, tail)
    return Gone(outcome, tail=tail)


def _is_ours(job: JobObject) -> bool:
    return job.attempt is not None and job.metadata.labels.get(JOB_LABEL) == job.attempt.job_id
