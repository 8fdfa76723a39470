"""Operations on the files of local models, as Jobs that mount the models volume. A Job is the record of its operation.

A Job's name follows from its file, so the cluster refuses a second operation of the same kind on one file. A finished
Job stays for a week. The leader copies the log from its pods to the Job, since pods can be lost with their node.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import replace

from labrats.backends.kubernetes import model_files_pod
from labrats.backends.kubernetes.batch_objects import CONTAINER, JobObject, PodObject
from labrats.backends.kubernetes.client import MERGE_PATCH, ApiClient, object_path
from labrats.backends.kubernetes.restricted_pod import EXECUTOR_LABELS, RESTRICTED_CONTAINER, RESTRICTED_POD, USER
from labrats.files.model_folder import progress_in
from labrats.model.errors import Conflict, LabratsError, NotFound, RetryLater
from labrats.model.model_files import FileOperation, FoundFile, OperationStatus
from labrats.model.record import encode
from labrats.ports import ModelPlace

FILE_LABEL: Final = "labrats.work/model-file"
"""Label of the Jobs of operations, with the value `yes`."""

OPERATION_ANNOTATION: Final = "labrats.work/model-operation"
LOG_ANNOTATION: Final = "labrats.work/model-log"
"""Annotations of Jobs: the operation, and the log of a finished one."""

FOLDER: Final = "/models"
"""Mount path of the volume."""

LOG_CHARACTERS: Final = 32 * 1024
"""Maximum length of a stored log, which is cut at its beginning."""

RETENTION_SECONDS: Final = 7 * 24 * 3600
DEADLINE_SECONDS: Final = 2 * 24 * 3600
RETRIES: Final = 6
"""Number of further pods after a failure: nodes are lost, and model hubs are out of reach."""

TRIES: Final = 3
"""Attempts to begin an operation while other clients begin and replace operations on the same file."""

SCAN_SECONDS: Final = 90.0
POLL_SECONDS: Final = 0.5
STORE_LOGS_SECONDS: Final = 30.0

log = structlog.get_logger()


@dataclass(frozen=True)
class ModelPodSettings:
    """Settings of the pods that work on the models volume.

    image:       image of the engine.
    claim:       PersistentVolumeClaim of the volume.
    environment: settings of the engine that limit downloads.
    pod_fields:  further fields of the pod's spec, the same as for the pods of jobs.
    """

    image: str
    claim: str
    environment: Mapping[str, str] = field(default_factory=dict)
    pod_fields: Mapping[str, Any] = field(default_factory=dict)


class ClusterModelFiles:
    """The ModelFiles (labrats/ports.py) on a volume of the cluster."""

    def __init__(self, client: ApiClient, namespace: str, settings: ModelPodSettings) -> None:
        self._client, self._settings = client, settings
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"

    @property
    def place(self) -> ModelPlace:
        return ModelPlace(claim=self._settings.claim)

    async def run(self) -> None:
        """Store the logs of finished operations until cancelled. Only the leader runs this."""
        while True:
            try:
                jobs = await self._all()
            except LabratsError as error:
                log.info("model file operations not listed", reason=str(error))
                jobs = []
            for job in jobs:
                if job.has_ended and LOG_ANNOTATION not in job.metadata.annotations:
                    try:
                        await self._store_log(job)
                    except LabratsError as error:  # for example, its node is lost; go on with the others
                        log.info("log of a model file operation not stored yet", job=job.name, reason=str(error))
            await asyncio.sleep(STORE_LOGS_SECONDS)

    async def scan(self) -> Sequence[FoundFile]:
        job = await self._create(scan_job(f"models-scan-{secrets.token_hex(4)}", self._settings))
        try:
            async with asyncio.timeout(SCAN_SECONDS):
                while not job.has_ended:
                    await asyncio.sleep(POLL_SECONDS)
                    job = await self._get(job.name)
            return _found(await self._pod_logs(job))
        except TimeoutError as error:
            claim = self._settings.claim
            message = f"scanning the volume {claim!r} took more than {SCAN_SECONDS:g} s; check that the claim is bound"
            raise RetryLater(message, delay_seconds=30) from error
        finally:
            await self._delete(job)

    async def begin(self, operation: FileOperation) -> FileOperation:
        manifest = operation_job(operation, self._settings)
        for _ in range(TRIES):
            await self._check_other_operation(operation)
            created = None
            with suppress(Conflict):
                created = await self._create(manifest)
            if created:
                return await self._operation_of(await self._withdraw_if_busy(created, operation))
            with suppress(NotFound):  # another client has just deleted it
                job = await self._get(operation.name)
                known = await self._operation_of(job)
                if known.matches(operation) and not known.has_ended:
                    return known
                if not known.has_ended:
                    raise Conflict(f"{known.filename} is busy with a {known.work}; wait until that has ended")
                await self._delete(job)
        raise Conflict(f"{operation.filename} is busy: other clients begin operations on it, too")

    async def _withdraw_if_busy(self, created: JobObject, operation: FileOperation) -> JobObject:
        """Delete the Job if the other operation on its file has begun, too. At least one of the two clients notices."""
        try:
            await self._check_other_operation(operation)
        except Conflict:
            await self._delete(created)
            raise
        return created

    async def _check_other_operation(self, operation: FileOperation) -> None:
        """Raise Conflict while the other operation on the file is under way."""
        with suppress(NotFound):
            other = await self._operation_of(await self._get(operation.opposite.name))
            if not other.has_ended:
                raise Conflict(f"{other.filename} is busy with a {other.work}; wait until that has ended")

    async def operations(self) -> Sequence[FileOperation]:
        found = [await self._operation_of(job) for job in await self._all()]
        return sorted(found, key=lambda operation: (str(operation.created_at), operation.name), reverse=True)

    async def log(self, name: str) -> Sequence[str]:
        jobs = [job for job in await self._all() if job.name == name]
        if not jobs:
            raise NotFound(f"there is no operation {name!r} on a model's file")
        return await self._log_of(jobs[0])

    async def _operation_of(self, job: JobObject) -> FileOperation:
        """Return the operation of a Job, with its current status."""
        operation = msgspec.json.decode(job.metadata.annotations[OPERATION_ANNOTATION], type=FileOperation)
        operation = replace(operation, created_at=job.metadata.creation_timestamp)
        if done := job.condition("Complete"):
            return replace(operation, status=OperationStatus.COMPLETED, finished_at=done.last_transition_time)
        if failed := job.condition("Failed"):
            *_, last = await self._log_of(job) or [""]
            reason = last.partition(" ")[2] or failed.message  # a line of the log begins with the time
            return replace(
                operation, status=OperationStatus.FAILED, reason=reason, finished_at=failed.last_transition_time
            )
        if not job.status.ready:
            return replace(operation, status=OperationStatus.WAITING)
        lines = (await self._pod_logs(job, last_lines=5)).splitlines()
        return replace(operation, status=OperationStatus.ACTIVE, progress=progress_in(lines))

    async def _log_of(self, job: JobObject) -> list[str]:
        stored = job.metadata.annotations.get(LOG_ANNOTATION)
        return (await self._pod_logs(job) if stored is None else stored).splitlines()

    async def _store_log(self, job: JobObject) -> None:
        text = (await self._pod_logs(job))[-LOG_CHARACTERS:]
        patch = {"metadata": {"annotations": {LOG_ANNOTATION: text}, "uid": job.metadata.uid}}
        path = f"{self._jobs}/{job.name}"
        with suppress(Conflict):  # the name belongs to a later operation
            await self._client.request("PATCH", path, encode(patch), content_type=MERGE_PATCH)

    async def _pod_logs(self, job: JobObject, last_lines: int | None = None) -> str:
        """Return the logs of the Job's pods that still exist, the oldest pod first. last_lines: of each."""
        query = {"labelSelector": f"batch.kubernetes.io/controller-uid={job.metadata.uid}"}
        pods = [_READ_POD(item) async for page in self._client.pages(self._pods, query) for item in page.items]
        logs = b""
        for pod in sorted(pods, key=lambda pod: str(pod.metadata.creation_timestamp)):
            if pod.has_started:
                with suppress(NotFound):  # deleted meanwhile
                    path = f"{self._pods}/{pod.name}/log" + (f"?tailLines={last_lines}" if last_lines else "")
                    logs += await self._client.request("GET", path)
        return logs.decode(errors="replace")

    async def _all(self) -> list[JobObject]:
        """Return the Jobs of all operations, without Jobs that a person labelled."""
        query = {"labelSelector": f"{FILE_LABEL}=yes"}
        jobs = [_READ_JOB(item) async for page in self._client.pages(self._jobs, query) for item in page.items]
        return [job for job in jobs if OPERATION_ANNOTATION in job.metadata.annotations]

    async def _create(self, manifest: dict[str, Any]) -> JobObject:
        return _READ_JOB(await self._client.request("POST", self._jobs, encode(manifest)))

    async def _get(self, name: str) -> JobObject:
        return _READ_JOB(await self._client.request("GET", object_path(self._jobs, name)))

    async def _delete(self, job: JobObject) -> None:
        options = {"propagationPolicy": "Background", "preconditions": {"uid": job.metadata.uid}}
        with suppress(NotFound, Conflict):  # it is deleted, or another Job has its name
            await self._client.request("DELETE", f"{self._jobs}/{job.name}", encode(options))


def operation_job(operation: FileOperation, settings: ModelPodSettings) -> dict[str, Any]:
    """Return the Job that carries out `operation`. If its pod is killed or a hub is down, another pod continues."""
    labels = {FILE_LABEL: "yes", **EXECUTOR_LABELS}
    annotations = {OPERATION_ANNOTATION: encode(operation).decode()}
    field = {"fieldPath": f"metadata.annotations['{OPERATION_ANNOTATION}']"}
    variable = {"name": model_files_pod.OPERATION_VARIABLE, "valueFrom": {"fieldRef": field}}
    permanent = {"containerName": CONTAINER, "operator": "In", "values": [model_files_pod.PERMANENT]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": operation.name, "labels": labels, "annotations": annotations},
        "spec": {
            "backoffLimit": RETRIES,
            "podReplacementPolicy": "Failed",  # two pods would write the same file
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": permanent}]},
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": RETENTION_SECONDS,
            "template": {
                "metadata": {"labels": EXECUTOR_LABELS, "annotations": annotations},
                "spec": _pod(settings, [variable], read_only=False),
            },
        },
    }


def scan_job(name: str, settings: ModelPodSettings) -> dict[str, Any]:
    """Return the Job that prints the files on the volume."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": EXECUTOR_LABELS},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": round(SCAN_SECONDS),
            "ttlSecondsAfterFinished": round(SCAN_SECONDS),
            "template": {"metadata": {"labels": EXECUTOR_LABELS}, "spec": _pod(settings, [], read_only=True)},
        },
    }


def _pod(settings: ModelPodSettings, variables: list[dict[str, Any]], *, read_only: bool) -> dict[str, Any]:
    """Return the pod's spec, which fulfils Pod Security `restricted`. It has one volume, and no credentials."""
    environment = {**settings.environment, "LABRATS_DATA_DIR": FOLDER, "LABRATS_MODELS_DIR": FOLDER}
    group = {"fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch"}
    container = {
        **RESTRICTED_CONTAINER,
        "name": CONTAINER,
        "image": settings.image,
        "command": ["python", "-m", model_files_pod.__name__],
        "env": [{"name": name, "value": value} for name, value in environment.items()] + variables,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [{"name": "models", "mountPath": FOLDER, "readOnly": read_only}],
    }
    return {
        **settings.pod_fields,
        **RESTRICTED_POD,
        "securityContext": RESTRICTED_POD["securityContext"] | group,
        "containers": [container],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": settings.claim}}],
    }


def _found(printed: str) -> list[FoundFile]:
    """Return the files that a scan printed. Raises RetryLater if it failed."""
    try:
        return msgspec.json.decode(printed, type=list[FoundFile])
    except msgspec.DecodeError as error:
        *_, last = printed.splitlines() or ["its pod printed nothing"]
        raise RetryLater(f"scanning the models volume failed: {last}", delay_seconds=30) from error


_READ_JOB: Final = msgspec.json.Decoder(JobObject).decode
_READ_POD: Final = msgspec.json.Decoder(PodObject).decode
