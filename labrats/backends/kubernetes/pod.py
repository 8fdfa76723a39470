"""The Job that runs one attempt, and the pod in it: a manifest as Kubernetes takes it. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final

from msgspec.structs import replace

from labrats.backends.kubernetes.batch_objects import (
    ATTEMPT_LABEL,
    CLONE_CONTAINER,
    CONTAINER,
    JOB_LABEL,
    OWNER_ANNOTATION,
    PREPARE_CONTAINER,
    PROMPT_ANNOTATION,
    TASK_ANNOTATION,
)
from labrats.backends.kubernetes.claims import claim_path
from labrats.backends.kubernetes.codec import LABRATS_API
from labrats.backends.kubernetes.failures import NEVER_STARTED, failure_annotations
from labrats.files.attempt_inputs import (
    PROMPT_FILE,
    SECRETS_FOLDER,
    TASK_FILE,
    AttemptInputs,
    TextInput,
    inputs_of,
    task_of,
)
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import GiveUp
from labrats.model.image_name import problem_of_image
from labrats.model.job import FailedCode, Job, WorkspaceFile
from labrats.model.protocol import CLAIMED_STATUS, IDLE_SECONDS, OUTPUT_BYTES, POD_VARIABLE, Resumption, Task
from labrats.model.record import encode
from labrats.ports import Attempt
from labrats.settings import PodExtras

INPUTS: Final = "/attempt/inputs"
SCRATCH: Final = "/attempt/scratch"
"""The executor's two folders: what it reads, and where it may write. The image's entrypoint is given their names."""

SOURCE: Final = "/attempt/source"
"""Mount of the inputs of the steps before the executor, Secrets included."""

INPUTS_SIZE: Final = "16Mi"
"""Bound on the executor's inputs, which are in memory: texts, settings and Secrets, each of at most 1 MiB."""

CLAIMS: Final = "/attempt/claims"
"""Mount of the folder in which the step `prepare` claims the attempt for its pod."""

UPLOADS: Final = PurePath("/attempt/uploads")
"""Where the executor finds the files that came with its job."""

USER: Final = 10001
"""Whom executors run as. The images of ours have this user."""

EXECUTOR_LABELS: Final = {
    "app.kubernetes.io/managed-by": "labrats",
    "app.kubernetes.io/component": "executor",
}
"""The NetworkPolicy of executors knows their pods by these."""

RESTRICTED_POD: Final[Mapping[str, Any]] = {
    "restartPolicy": "Never",
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}
RESTRICTED_CONTAINER: Final[Mapping[str, Any]] = {
    "imagePullPolicy": "IfNotPresent",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}
"""Fields of every pod and container that the engine makes: within what Pod Security calls `restricted`."""

DEADLINE_MARGIN_SECONDS: Final = 600
"""How much later than the engine, which is trusted to do so, the cluster ends an attempt."""

SecretFiles = Sequence[tuple[str, Mapping[str, str]]]
"""The names of Secrets, each with the keys that are mounted, by the names that their files have for the executor."""


@dataclass(frozen=True)
class PodCredentials:
    """The Secrets of an attempt, by the one container that mounts them.

    repository: of the step `clone`. agent: of the step `prepare`, which hands them to the executor.
    """

    repository: SecretFiles = ()
    agent: SecretFiles = ()


@dataclass(frozen=True)
class PodSettings:
    """What the pods of all attempts have in common.

    image:          of the executor, where the job's settings name none, and of the steps before it.
    resources:      of its container, as Kubernetes writes them, where the job's settings have none.
    images:         those that a job may name instead; any where it is empty.
    scratch_size:   how much the workspace, the agent's home and its temporary files may take together.
    pod_fields:     further fields of the pod's spec (nodeSelector, runtimeClassName …). Those set here win over them.
    uploads_claim:  the claim by which pods have the uploads volume, at the root of it.
    data_claim:     the claim of the engine's own volume, on which a pod claims its attempt. Without it nothing keeps
                    the cluster from starting two pods that both act: the engine then ends both.
    extras:         what else the pods have. Volumes are mounted where the repository is cloned and the agent runs.
    grace_seconds:  how long an executor that is asked to end may take.
    kept_seconds:   for how long a finished Job stays in the cluster. Also how long the engine may be away before it
                    finds no outcome any more.
    """

    image: str
    resources: Mapping[str, Any]
    scratch_size: str
    images: Collection[str] = ()
    uploads_claim: str | None = None
    data_claim: str | None = None
    pod_fields: Mapping[str, Any] = field(default_factory=dict)
    extras: PodExtras = PodExtras()
    git_addresses: tuple[str, ...] = ()
    idle_seconds: float = IDLE_SECONDS
    output_bytes: int = OUTPUT_BYTES
    grace_seconds: float = 10.0
    start_timeout_seconds: float = 300.0
    kept_seconds: int = 86_400


def attempt_job(attempt: Attempt, credentials: PodCredentials, settings: PodSettings) -> dict[str, Any]:
    """The Job that runs `attempt`. Raises GiveUp when it needs what this engine was not given."""
    job = attempt.job
    labels = {
        JOB_LABEL: job.id,
        ATTEMPT_LABEL: str(job.status.attempts),
        **EXECUTOR_LABELS,
    }
    seconds = job.resolved.timeout_seconds + settings.start_timeout_seconds + settings.grace_seconds
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": str(attempt.name), "labels": labels, "ownerReferences": _owners(job.id, job.metadata.uid)},
        "spec": {
            # One attempt is one pod: whether there is another attempt, the engine decides.
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            # A pod that found the attempt claimed is no failure of it.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onExitCodes": {
                            "containerName": PREPARE_CONTAINER,
                            "operator": "In",
                            "values": [CLAIMED_STATUS],
                        },
                    }
                ]
            },
            "activeDeadlineSeconds": round(seconds) + DEADLINE_MARGIN_SECONDS,
            "ttlSecondsAfterFinished": settings.kept_seconds,
            "template": {
                "metadata": {
                    "labels": {**settings.extras.labels, **labels},
                    "annotations": {**settings.extras.annotations, **_annotations(attempt, settings)},
                },
                "spec": _pod(attempt, credentials, settings),
            },
        },
    }


def placeholder_job(name: AttemptName, owner: str, settings: PodSettings) -> dict[str, Any]:
    """A Job that takes the name of an attempt and fails without ever having a pod, so that no other can start.

    owner: the uid of the attempt's job, if it is known.
    """
    labels = {JOB_LABEL: name.job_id, ATTEMPT_LABEL: str(name.number), "app.kubernetes.io/managed-by": "labrats"}
    pod = {"restartPolicy": "Never", "containers": [{"name": CONTAINER, "image": settings.image}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": str(name),
            "labels": labels,
            "annotations": failure_annotations(NEVER_STARTED),
            "ownerReferences": _owners(name.job_id, owner),
        },
        "spec": {
            "activeDeadlineSeconds": 0,
            "ttlSecondsAfterFinished": settings.kept_seconds,
            "template": {"spec": pod},
        },
    }


def _owners(job_id: str, uid: str) -> list[dict[str, Any]]:
    owner = {"apiVersion": LABRATS_API, "kind": Job.kind(), "name": job_id, "uid": uid, "controller": True}
    return [owner] if uid else []


def _annotations(attempt: Attempt, settings: PodSettings) -> dict[str, str]:
    """Whose it is; and what the executor is told, read by it from files. That costs no object of its own, and holds no
    secret.
    """
    job = attempt.job
    task = encode(_task(attempt, settings)).decode()
    annotations = {OWNER_ANNOTATION: job.metadata.uid, TASK_ANNOTATION: task}
    prompt = inputs_of(attempt).prompt
    return annotations if prompt is None else annotations | {PROMPT_ANNOTATION: prompt}


def _task(attempt: Attempt, settings: PodSettings) -> Task:
    return replace(
        task_of(attempt, workspace=f"{SCRATCH}/workspace", uploads=UPLOADS),
        git_addresses=settings.git_addresses,
        idle_seconds=settings.idle_seconds,
        output_bytes=settings.output_bytes,
        resumption=_resumption(attempt),
        on_cluster=True,
    )


def _resumption(attempt: Attempt) -> Resumption | None:
    """A pod's workspace ends with the pod: the attempt begins anew, and says why."""
    session = attempt.earlier_session
    return Resumption(session=session) if session else None


def _pod(attempt: Attempt, credentials: PodCredentials, settings: PodSettings) -> dict[str, Any]:
    """The pod's spec, within what Pod Security calls `restricted`."""
    job = attempt.job
    uploads = _upload_mounts(job.spec.files, settings)
    config = job.resolved.config
    if config.executor_image and (problem := problem_of_image(config.executor_image, settings.images)):
        raise GiveUp(FailedCode.INVALID, f"config.executorImage: {problem}")
    resources = config.executor_resources or settings.resources
    executor = {
        **RESTRICTED_CONTAINER,
        "name": CONTAINER,
        "image": config.executor_image or settings.image,
        "args": [INPUTS, SCRATCH],
        "resources": resources,
        "volumeMounts": [_INPUTS_MOUNT, *_SCRATCH_MOUNTS, *uploads, *settings.extras.volume_mounts],
    }
    steps = [_prepare_step(attempt.name, settings), *([_clone_step(settings)] if job.spec.workspace_setup else [])]
    # Never of an image that a job names: these have credentials which the agent's container has not.
    first, *others = [{**step, "image": settings.image, "resources": resources} for step in steps]
    return {
        **settings.pod_fields,
        **RESTRICTED_POD,
        "terminationGracePeriodSeconds": round(settings.grace_seconds),
        "initContainers": [first, *settings.pod_fields.get("initContainers", ()), *others],
        "containers": [executor],
        "volumes": [
            _source_volume(inputs_of(attempt), credentials.agent),
            *([_repository_volume(credentials.repository)] if job.spec.workspace_setup else []),
            {"name": "inputs", "emptyDir": {"medium": "Memory", "sizeLimit": INPUTS_SIZE}},
            {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch_size}},
            *([_uploads_volume(settings)] if uploads else []),
            *([_claims_volume(settings)] if settings.data_claim else []),
            *settings.extras.volumes,
        ],
    }


_INPUTS_MOUNT: Final = {"name": "inputs", "mountPath": INPUTS}
_SCRATCH_MOUNTS: Final = (
    {"name": "scratch", "mountPath": SCRATCH},
    {"name": "scratch", "mountPath": "/tmp", "subPath": "tmp"},  # noqa: S108, the pod's own
)


def _prepare_step(name: AttemptName, settings: PodSettings) -> dict[str, Any]:
    """The container that claims the attempt and hands the inputs over. It alone mounts the folder with the claim, and
    the Secrets of the model and of MCP servers.
    """
    claims = {"name": "claims", "mountPath": CLAIMS, "subPath": str(claim_path(name))}
    return {
        **RESTRICTED_CONTAINER,
        "name": PREPARE_CONTAINER,
        "args": ["prepare", SOURCE, INPUTS, *([CLAIMS] if settings.data_claim else [])],
        "env": [{"name": POD_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": [
            {"name": "source", "mountPath": SOURCE, "readOnly": True},
            _INPUTS_MOUNT,
            *([claims] if settings.data_claim else []),
        ],
    }


def _clone_step(settings: PodSettings) -> dict[str, Any]:
    """The container that clones the repository, and alone mounts its Secret."""
    return {
        **RESTRICTED_CONTAINER,
        "name": CLONE_CONTAINER,
        "args": ["clone", SOURCE, SCRATCH],
        "volumeMounts": [
            {"name": "repository", "mountPath": SOURCE, "readOnly": True},
            *_SCRATCH_MOUNTS,
            *settings.extras.volume_mounts,
        ],
    }


def _repository_volume(secrets: SecretFiles) -> dict[str, Any]:
    sources = [_from_pod({TASK_FILE: TASK_ANNOTATION}), *_secret_sources(secrets)]
    return {"name": "repository", "projected": {"defaultMode": 0o444, "sources": sources}}


def _source_volume(inputs: AttemptInputs, secrets: SecretFiles) -> dict[str, Any]:
    """Return the volume with the executor's inputs."""
    prompt = {} if inputs.prompt is None else {PROMPT_FILE: PROMPT_ANNOTATION}
    texts = [_text_source(text) for text in inputs.texts]
    sources = [_from_pod({TASK_FILE: TASK_ANNOTATION, **prompt}), *texts, *_secret_sources(secrets)]
    return {"name": "source", "projected": {"defaultMode": 0o444, "sources": sources}}


def _text_source(text: TextInput) -> dict[str, Any]:
    return {"configMap": {"name": text.ref.name, "items": [{"key": text.ref.key, "path": text.file}]}}


def _from_pod(annotations: Mapping[str, str]) -> dict[str, Any]:
    """The source with files of the pod's own annotations, by the names of the files."""
    fields = [
        {"path": path, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
        for path, annotation in annotations.items()
    ]
    return {"downwardAPI": {"items": fields}}


def _secret_sources(secrets: SecretFiles) -> list[dict[str, Any]]:
    return [_secret_source(name, files) for name, files in secrets if files]  # without items, all keys would be mounted


def _secret_source(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    items = [{"key": key, "path": f"{SECRETS_FOLDER}/{file}"} for file, key in files.items()]
    return {"secret": {"name": name, "items": items}}


def _upload_mounts(files: Sequence[WorkspaceFile], settings: PodSettings) -> list[dict[str, Any]]:
    """The folders of the files that came with the job, and nothing of other jobs."""
    if files and settings.uploads_claim is None:
        raise GiveUp(FailedCode.WORKSPACE, "the job brings files, and the engine has no uploads volume for its pods")
    folders = sorted({str(PurePath(file.path).parent) for file in files})
    return [
        {"name": "uploads", "mountPath": str(UPLOADS / folder), "subPath": folder, "readOnly": True}
        for folder in folders
    ]


def _claims_volume(settings: PodSettings) -> dict[str, Any]:
    return {"name": "claims", "persistentVolumeClaim": {"claimName": settings.data_claim}}


def _uploads_volume(settings: PodSettings) -> dict[str, Any]:
    return {"name": "uploads", "persistentVolumeClaim": {"claimName": settings.uploads_claim, "readOnly": True}}
