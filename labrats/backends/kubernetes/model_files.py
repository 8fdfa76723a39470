"""Operations on models' files as Jobs on the volume of models: each Job is the record of what it does.

A Job is called as its file is, so the cluster itself keeps two operations on one file apart. It stays for a week when
it has ended, with its log, which a leader copies from its pods to the Job: they may go with their node.
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
from labrats.backends.kubernetes.client import MERGE_PATCH, ApiClient
from labrats.backends.kubernetes.pod import EXECUTOR_LABELS, RESTRICTED_CONTAINER, RESTRICTED_POD, USER
from labrats.model.errors import Conflict, LabratsError, NotFound, RetryLater
from labrats.model.model_files import FileOperation, FoundFile, OperationStatus
from labrats.model.record import encode
from labrats.ports import ModelPlace

FILE_LABEL: Final = "labrats.work/model-file"
"""On the Jobs of operations, and on their pods: `yes`."""

OPERATION_ANNOTATION: Final = "labrats.work/model-operation"
LOG_ANNOTATION: Final = "labrats.work/model-log"
"""On Jobs: what they do, and what they said, once they have ended."""

FOLDER: Final = "/models"
"""Where pods have the volume."""

LONGEST_LOG: Final = 32 * 1024
"""How much of a log is kept: the end of it."""

KEPT_SECONDS: Final = 7 * 24 * 3600
DEADLINE_SECONDS: Final = 2 * 24 * 3600
MORE_PODS: Final = 6
"""How often it is tried again: pods are killed with their nodes, and hubs are away."""

TRIES: Final = 3
"""How often an operation is begun while others begin and forget ones on the same file."""

SCAN_SECONDS: Final = 90.0
LOOK_SECONDS: Final = 0.5
KEEP_LOGS_SECONDS: Final = 30.0

log = structlog.get_logger()


@dataclass(frozen=True)
class ModelPodSettings:
    """image: the engine's.   claim: that of the volume of models.   environment: the engine's settings for the work.
    pod_fields: further fields of the pod's spec, as of jobs' pods.
    """

    image: str
    claim: str
    environment: Mapping[str, str] = field(default_factory=dict)
    pod_fields: Mapping[str, Any] = field(default_factory=dict)


class ClusterModelFiles:
    """See ModelFiles in labrats/ports.py."""

    def __init__(self, client: ApiClient, namespace: str, settings: ModelPodSettings) -> None:
        self._client, self._settings = client, settings
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"

    @property
    def place(self) -> ModelPlace:
        return ModelPlace(claim=self._settings.claim)

    async def run(self) -> None:
        """For whoever leads: keep the logs of operations that have ended, until cancelled."""
        while True:
            try:
                for job in await self._all():
                    if job.has_ended and LOG_ANNOTATION not in job.metadata.annotations:
                        await self._keep_log(job)
            except LabratsError as error:
                log.info("logs of operations on models' files are kept later", reason=str(error))
            await asyncio.sleep(KEEP_LOGS_SECONDS)

    async def scan(self) -> Sequence[FoundFile]:
        job = await self._create(scan_job(f"models-scan-{secrets.token_hex(4)}", self._settings))
        try:
            async with asyncio.timeout(SCAN_SECONDS):
                while not job.has_ended:
                    await asyncio.sleep(LOOK_SECONDS)
                    job = await self._get(job.name)
            return _found(await self._said(job))
        except TimeoutError as error:
            message = f"the volume {self._settings.claim!r} could not be scanned in {SCAN_SECONDS:g} s; is it bound?"
            raise RetryLater(message, delay_seconds=30) from error
        finally:
            await self._delete(job)

    async def begin(self, operation: FileOperation) -> FileOperation:
        manifest = operation_job(operation, self._settings)
        for _ in range(TRIES):
            await self._refuse_beside(operation)
            created = None
            with suppress(Conflict):
                created = await self._create(manifest)
            if created:
                return await self._standing(await self._alone(created, operation))
            with suppress(NotFound):  # somebody else has just forgotten it
                job = await self._get(operation.name)
                known = await self._standing(job)
                if known.matches(operation) and not known.has_ended:
                    return known
                if not known.has_ended:
                    raise Conflict(f"{known.filename} is busy with a {known.work}; wait until that has ended")
                await self._delete(job)
        raise Conflict(f"{operation.filename} is busy: others begin operations on it too")

    async def _alone(self, created: JobObject, operation: FileOperation) -> JobObject:
        """Take the Job back where the other operation on the file began at the same time; one of both notices that."""
        try:
            await self._refuse_beside(operation)
        except Conflict:
            await self._delete(created)
            raise
        return created

    async def _refuse_beside(self, operation: FileOperation) -> None:
        """Raises Conflict while the other operation on the file is under way."""
        with suppress(NotFound):
            other = await self._standing(await self._get(operation.opposite.name))
            if not other.has_ended:
                raise Conflict(f"{other.filename} is busy with a {other.work}; wait until that has ended")

    async def operations(self) -> Sequence[FileOperation]:
        found = [await self._standing(job) for job in await self._all()]
        return sorted(found, key=lambda operation: (str(operation.created_at), operation.name), reverse=True)

    async def log(self, name: str) -> Sequence[str]:
        jobs = [job for job in await self._all() if job.name == name]
        if not jobs:
            raise NotFound(f"there is no operation {name!r} on a model's file")
        return await self._log_of(jobs[0])

    async def _standing(self, job: JobObject) -> FileOperation:
        """The operation that `job` is, as it stands."""
        operation = msgspec.json.decode(job.metadata.annotations[OPERATION_ANNOTATION], type=FileOperation)
        operation = replace(operation, created_at=job.metadata.creation_timestamp)
        if done := job.condition("Complete"):
            return replace(operation, status=OperationStatus.COMPLETED, finished_at=done.last_transition_time)
        if failed := job.condition("Failed"):
            *_, last = await self._log_of(job) or [""]
            reason = last.partition(" ")[2] or failed.message  # a log's lines begin with their time
            return replace(
                operation, status=OperationStatus.FAILED, reason=reason, finished_at=failed.last_transition_time
            )
        return replace(operation, status=OperationStatus.ACTIVE if job.status.ready else OperationStatus.WAITING)

    async def _log_of(self, job: JobObject) -> list[str]:
        kept = job.metadata.annotations.get(LOG_ANNOTATION)
        return (await self._said(job) if kept is None else kept).splitlines()

    async def _keep_log(self, job: JobObject) -> None:
        said = (await self._said(job))[-LONGEST_LOG:]
        patch = {"metadata": {"annotations": {LOG_ANNOTATION: said}, "uid": job.metadata.uid}}
        path = f"{self._jobs}/{job.name}"
        with suppress(Conflict):  # another operation on the same file has begun
            await self._client.request("PATCH", path, encode(patch), content_type=MERGE_PATCH)

    async def _said(self, job: JobObject) -> str:
        """What the pods of `job` have said, as far as they are still there, one after the other."""
        query = {"labelSelector": f"batch.kubernetes.io/controller-uid={job.metadata.uid}"}
        pods = [_READ_POD(item) async for page in self._client.pages(self._pods, query) for item in page.items]
        said = b""
        for pod in sorted(pods, key=lambda pod: str(pod.metadata.creation_timestamp)):
            if pod.has_started:
                with suppress(NotFound):  # it has gone meanwhile
                    said += await self._client.request("GET", f"{self._pods}/{pod.name}/log")
        return said.decode(errors="replace")

    async def _all(self) -> list[JobObject]:
        """The Jobs of all operations; one that somebody has labelled by hand is none."""
        query = {"labelSelector": f"{FILE_LABEL}=yes"}
        jobs = [_READ_JOB(item) async for page in self._client.pages(self._jobs, query) for item in page.items]
        return [job for job in jobs if OPERATION_ANNOTATION in job.metadata.annotations]

    async def _create(self, manifest: dict[str, Any]) -> JobObject:
        return _READ_JOB(await self._client.request("POST", self._jobs, encode(manifest)))

    async def _get(self, name: str) -> JobObject:
        return _READ_JOB(await self._client.request("GET", f"{self._jobs}/{name}"))

    async def _delete(self, job: JobObject) -> None:
        options = {"propagationPolicy": "Background", "preconditions": {"uid": job.metadata.uid}}
        with suppress(NotFound, Conflict):  # it is gone, or another has its name
            await self._client.request("DELETE", f"{self._jobs}/{job.name}", encode(options))


def operation_job(operation: FileOperation, settings: ModelPodSettings) -> dict[str, Any]:
    """The Job that carries `operation` out. It goes on in another pod where one was killed, or a hub was away."""
    labels = {FILE_LABEL: "yes", **EXECUTOR_LABELS}
    annotations = {OPERATION_ANNOTATION: encode(operation).decode()}
    field = {"fieldPath": f"metadata.annotations['{OPERATION_ANNOTATION}']"}
    told = {"name": model_files_pod.OPERATION_VARIABLE, "valueFrom": {"fieldRef": field}}
    never = {"containerName": CONTAINER, "operator": "In", "values": [model_files_pod.NEVER]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": operation.name, "labels": labels, "annotations": annotations},
        "spec": {
            "backoffLimit": MORE_PODS,
            "podReplacementPolicy": "Failed",  # two of them would write the same file
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": never}]},
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {
                "metadata": {"labels": EXECUTOR_LABELS, "annotations": annotations},
                "spec": _pod(settings, [told], read_only=False),
            },
        },
    }


def scan_job(name: str, settings: ModelPodSettings) -> dict[str, Any]:
    """The Job that prints what is on the volume."""
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


def _pod(settings: ModelPodSettings, told: list[dict[str, Any]], *, read_only: bool) -> dict[str, Any]:
    """The pod's spec, within what Pod Security calls `restricted`: it has the one volume, and no credential."""
    environment = {**settings.environment, "LABRATS_DATA_DIR": FOLDER, "LABRATS_MODELS_DIR": FOLDER}
    group = {"fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch"}
    container = {
        **RESTRICTED_CONTAINER,
        "name": CONTAINER,
        "image": settings.image,
        "command": ["python", "-m", model_files_pod.__name__],
        "env": [{"name": name, "value": value} for name, value in environment.items()] + told,
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


def _found(said: str) -> list[FoundFile]:
    """What a scan has printed. Raises RetryLater where it has not."""
    try:
        return msgspec.json.decode(said, type=list[FoundFile])
    except msgspec.DecodeError as error:
        *_, last = said.splitlines() or ["its pod said nothing"]
        raise RetryLater(f"the volume of models could not be scanned: {last}", delay_seconds=30) from error


_READ_JOB: Final = msgspec.json.Decoder(JobObject).decode
_READ_POD: Final = msgspec.json.Decoder(PodObject).decode
