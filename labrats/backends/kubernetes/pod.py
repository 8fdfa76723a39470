"""The manifest of the Job that runs one attempt, and of its pod. Pure."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final

from msgspec.structs import replace

from labrats.backends.kubernetes.batch_objects import (
    ATTEMPT_LABEL,
    CACHE_KEEPER_CONTAINER,
    CLONE_CONTAINER,
    CONTAINER,
    EGRESS_ANNOTATIONS,
    JOB_LABEL,
    KEY_PROXY_CONTAINER,
    OWNER_ANNOTATION,
    PREPARE_CONTAINER,
    PROMPT_ANNOTATION,
    TASK_ANNOTATION,
)
from labrats.backends.kubernetes.claims import claim_path
from labrats.backends.kubernetes.codec import LABRATS_API
from labrats.backends.kubernetes.failures import NEVER_STARTED, failure_annotations
from labrats.backends.kubernetes.files import attempt_path
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
from labrats.model.config import GLOBAL_LAYER
from labrats.model.errors import GiveUp
from labrats.model.image_name import problem_of_image
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.job import FILE_PATH, UPLOAD_ID, FailedCode, Job, WorkspaceFile, base_cache_scope, cache_scope
from labrats.model.protocol import (
    CACHE_KEEPER_VARIABLE,
    CLAIMED_STATUS,
    EARLIER_VARIABLE,
    EGRESS_SETUP_TOKEN_FILE,
    EGRESS_TOKEN_FILE,
    IDLE_SECONDS,
    KEY_PROXY_VARIABLE,
    NO_LIMITS,
    OUTPUT_BYTES,
    POD_VARIABLE,
    ResourceLimits,
    Resumption,
    Task,
)
from labrats.model.record import encode
from labrats.ports import Attempt
from labrats.settings import PodExtras

INPUTS: Final = "/attempt/inputs"
SCRATCH: Final = "/attempt/scratch"
"""The executor's folders for inputs and for everything it writes. They are the arguments of the image's entrypoint."""

SOURCE: Final = "/attempt/source"
"""Mount path of the inputs of the steps before the executor, with the Secrets."""

INPUTS_SIZE: Final = "16Mi"
"""Size limit of the executor's inputs, which are in memory: texts, settings and Secrets of at most 1 MiB each."""

CLAIMS: Final = "/attempt/claims"
"""Mount path of the folder in which the step `prepare` claims the attempt for its pod."""

UPLOADS: Final = PurePath("/attempt/uploads")
"""Mount path of the files that were submitted with the job."""

USER: Final = 10001
"""User id of executors. The images of Labrats have this user."""

KEY_PROXY_FOLDER: Final = "/attempt/key-proxy"
"""Mount path of the folder with the token of the key proxy, in memory."""

CACHES: Final = "/attempt/caches"
"""Mount path of the cached folders of all jobs, in the cache keeper's container only."""

BASE_CACHES: Final = "/attempt/base-caches"
"""Mount path of those of the default branch, for a job of another ref."""

CACHES_FOLDER: Final = "caches"
"""Folder of the cached folders on the data volume."""

CACHE_KEEPER_FOLDER: Final = "/attempt/cache-keeper"
"""Mount path of the folder with the token of the cache keeper, in memory."""

_CACHE_KEEPER_RESOURCES: Final = {
    "requests": {"cpu": "10m", "memory": "32Mi"},
    "limits": {"cpu": "1", "memory": "256Mi"},
}

EARLIER: Final = "/attempt/earlier"
"""Mount path of the stored files of an earlier attempt, in the container of the step `prepare` only."""

EARLIER_FILES: Final = f"{SCRATCH}/earlier"
"""Folder to which that step copies them for the executor."""

KEY_PROXY_USER: Final = 10002
"""User id of the key proxy, which differs from that of the agent."""

KEY_PROXY_RESOURCES: Final = {
    "requests": {"cpu": "10m", "memory": "48Mi"},
    "limits": {"cpu": "1", "memory": "512Mi"},
}
"""Resources of the key proxy. The largest requests that it takes at once need some 380 MiB."""

_NOT_DISRUPTED: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations that stop autoscalers from evicting an agent: the tokens it has used would be lost."""

EXECUTOR_LABELS: Final = {
    "app.kubernetes.io/managed-by": "labrats",
    "app.kubernetes.io/component": "executor",
}
"""Labels by which a NetworkPolicy selects the pods of executors."""

RUNTIME_CLASS: Final = "runtimeClassName"
"""Field of a pod's spec."""

CONTAINER_ONLY: Final = IsolationLevels((Isolation.CONTAINER,), Isolation.CONTAINER)

CONFINED_LABELS: Final = {**EXECUTOR_LABELS, "app.kubernetes.io/component": "confined-executor"}
"""Labels of the pods of attempts with a network rule. NetworkPolicies add up, so that one for other executors must not
select these pods.
"""

_NO_NAME_SERVER: Final = {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["127.0.0.1"]}}
"""Fields of a pod that reaches no name server: a look-up fails at once instead of after a timeout."""

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
    # The node mounts a file of its own disk there, which anyone may write and no limit of the pod covers. In this
    # folder no user of a container reaches it.
    "terminationMessagePath": "/root/termination-log",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}
"""Fields of every pod and container that the engine creates. They fulfil Pod Security `restricted`."""

DEADLINE_MARGIN_SECONDS: Final = 600
"""Time after the engine's own deadline at which the cluster ends an attempt, should the engine not do so."""

SecretFiles = Sequence[tuple[str, Mapping[str, str]]]
"""Names of Secrets, each with the mounted keys by the names of their files."""


@dataclass(frozen=True)
class PodCredentials:
    """The Secrets that an attempt's pod mounts.

    repository: Secrets of the step `clone`.
    agent:      Secrets of the step `prepare`, which passes them to the executor.
    model:      Secret of the key proxy; empty for a job without one.
    egress:     address of the cluster's egress proxy, with a token for each part; None for a job with an open network.
    policy_tests: addresses of the egress proxy by which the pod tests whether policies are in force.
    keyless:    whether a key proxy serves a model without a key. With a network rule only it reaches the model.
    """

    repository: SecretFiles = ()
    agent: SecretFiles = ()
    model: SecretFiles = ()
    egress: "PodEgress | None" = None
    policy_tests: tuple[tuple[str, int], ...] = ()
    keyless: bool = False

    @property
    def has_proxy(self) -> bool:
        """True if the pod has a key proxy."""
        return bool(self.model) or self.keyless


@dataclass(frozen=True)
class PodEgress:
    """The way out of a pod with a network rule. tokens: by the part of the pod, as in EGRESS_ANNOTATIONS."""

    address: tuple[str, int]
    tokens: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class PodSettings:
    """Settings of the pods of all attempts.

    image:         image of the steps, and of the executor of jobs that name no other image.
    resources:     resources of the containers of jobs that set none, as in a pod's spec.
    images:        images that jobs may name; empty if any image is allowed.
    scratch_size:  size limit of the workspace, the agent's home and its temporary files together.
    pod_fields:    further fields of the pod's spec, such as nodeSelector. Fields that are set here win.
    uploads_claim: PersistentVolumeClaim of the uploads volume.
    data_claim:    PersistentVolumeClaim of the engine's volume, on which a pod claims its attempt. Without it, the
                   cluster may start two pods that both run the attempt; the engine then ends both.
    extras:        labels, annotations and volumes of the pods. Volumes are mounted in the containers that clone the
                   repository and run the agent, and read-only in that of the key proxy.
    caches_bytes:  limit on the cached folders of all jobs, on the engine's volume; 0 to keep none.
    grace_seconds: time that a stopped executor has to end.
    ttl_seconds:   time after which the cluster deletes a finished Job, and with it an outcome that no engine has read.
    isolation:     levels that pods can have. vm_runtime_class: the RuntimeClass of those with the level `vm`.
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
    limits: ResourceLimits = NO_LIMITS
    caches_bytes: int = 0
    grace_seconds: float = 10.0
    start_timeout_seconds: float = 300.0
    ttl_seconds: int = 86_400
    isolation: IsolationLevels = CONTAINER_ONLY
    vm_runtime_class: str | None = None


def attempt_job(
    attempt: Attempt, credentials: PodCredentials, settings: PodSettings, earlier: AttemptName | None = None
) -> dict[str, Any]:
    """Return the Job that runs `attempt`. Raises GiveUp if the engine is not configured for what the job needs.

    earlier: the attempt from whose stored files this one continues; None without one.
    """
    job = attempt.job
    labels = {
        JOB_LABEL: job.id,
        ATTEMPT_LABEL: str(job.status.attempts),
        **(CONFINED_LABELS if credentials.egress else EXECUTOR_LABELS),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": str(attempt.name), "labels": labels, "ownerReferences": _owners(job.id, job.metadata.uid)},
        "spec": {
            # One attempt is one pod. The engine, not the Job, decides on further attempts.
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            # A pod that found the attempt claimed by another pod does not count as a failure.
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
            "activeDeadlineSeconds": deadline_seconds(attempt, settings),
            "ttlSecondsAfterFinished": settings.ttl_seconds,
            "template": {
                "metadata": {
                    "labels": {**settings.extras.labels, **labels},
                    "annotations": {
                        **_NOT_DISRUPTED,
                        **settings.extras.annotations,
                        **_annotations(attempt, credentials, settings, earlier),
                    },
                },
                "spec": _pod(attempt, credentials, settings, earlier),
            },
        },
    }


def deadline_seconds(attempt: Attempt, settings: PodSettings) -> int:
    """Return the time after its start at which the cluster ends an attempt."""
    seconds = attempt.job.resolved.timeout_seconds + settings.start_timeout_seconds + settings.grace_seconds
    return round(seconds) + DEADLINE_MARGIN_SECONDS


def placeholder_job(name: AttemptName, owner: str, settings: PodSettings) -> dict[str, Any]:
    """Return a Job that occupies the name of an attempt and fails without a pod, so that the attempt cannot start.

    owner: uid of the attempt's job; empty if it is unknown.
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
            "ttlSecondsAfterFinished": settings.ttl_seconds,
            "template": {"spec": pod},
        },
    }


def _owners(job_id: str, uid: str) -> list[dict[str, Any]]:
    owner = {"apiVersion": LABRATS_API, "kind": Job.kind(), "name": job_id, "uid": uid, "controller": True}
    return [owner] if uid else []


def _annotations(
    attempt: Attempt, credentials: PodCredentials, settings: PodSettings, earlier: AttemptName | None
) -> dict[str, str]:
    """Return the pod's annotations: the owner, and the executor's task and prompt, which are mounted as files.

    They contain no secret of use outside the pod, and so need no object of their own.
    """
    job, egress = attempt.job, credentials.egress
    task = replace(_task(attempt, settings, EARLIER_FILES if earlier else None), policy_tests=credentials.policy_tests)
    if egress:
        task = replace(task, egress_proxy=egress.address)
    annotations = {OWNER_ANNOTATION: job.metadata.uid, TASK_ANNOTATION: encode(task).decode()}
    if egress:
        annotations |= {EGRESS_ANNOTATIONS[part]: token for part, token in egress.tokens.items()}
    prompt = inputs_of(attempt).prompt
    return annotations if prompt is None else annotations | {PROMPT_ANNOTATION: prompt}


def _task(attempt: Attempt, settings: PodSettings, kept: str | None) -> Task:
    """Return the executor's task. kept: the folder with the stored files of an earlier attempt."""
    task = task_of(attempt, workspace=f"{SCRATCH}/workspace", uploads=UPLOADS)
    resumption = attempt.earlier_session and Resumption(session=attempt.earlier_session, kept=kept)
    continuation = task.continuation and replace(
        task.continuation,
        session=attempt.continued_session,
        kept=None if resumption else kept,
        at_head=attempt.starts_at_head,
    )
    return replace(
        task,
        git_addresses=settings.git_addresses,
        idle_seconds=settings.idle_seconds,
        output_bytes=settings.output_bytes,
        limits=settings.limits,
        resumption=resumption,
        continuation=continuation,
        on_cluster=True,
        caches=f"{CACHES}/{cache_scope(attempt.job)}" if keeps_caches(attempt.job, settings) else None,
        base_caches=BASE_CACHES if keeps_caches(attempt.job, settings) and base_cache_scope(attempt.job) else None,
        caches_bytes=settings.caches_bytes,
    )


def keeps_caches(job: Job, settings: PodSettings) -> bool:
    """Return whether the pod of a job has a cache keeper."""
    setup = job.spec.workspace_setup
    return bool(setup and setup.setup and setup.cache and settings.data_claim and settings.caches_bytes)


def _pod(
    attempt: Attempt, credentials: PodCredentials, settings: PodSettings, earlier: AttemptName | None
) -> dict[str, Any]:
    """Return the pod's spec, which fulfils Pod Security `restricted`."""
    job = attempt.job
    uploads = _upload_mounts(job.spec.files, settings)
    config = job.resolved.config
    if config.executor_image and (problem := problem_of_image(config.executor_image, settings.images)):
        raise GiveUp(FailedCode.INVALID, f"config.executorImage: {problem}")
    resources = config.executor_resources or settings.resources
    if job.resolved.origins.get("executorResources") != GLOBAL_LAYER:
        resources = _with_limits(resources, settings.resources)
    executor = {
        **RESTRICTED_CONTAINER,
        "name": CONTAINER,
        "image": config.executor_image or settings.image,
        "args": [INPUTS, SCRATCH],
        "resources": resources,
        "volumeMounts": [_INPUTS_MOUNT, *_SCRATCH_MOUNTS, *uploads, *settings.extras.volume_mounts],
    }
    has_proxy, has_keeper = credentials.has_proxy, keeps_caches(job, settings)
    steps = [
        _prepare_step(attempt.name, settings, earlier, has_proxy=has_proxy, has_keeper=has_keeper),
        *([_clone_step(settings)] if job.spec.workspace_setup else []),
    ]
    # The steps never use an image that a job names: they have credentials that the agent must not read.
    first, *others = [{**step, "image": settings.image, "resources": resources} for step in steps]
    return {
        **settings.pod_fields,
        **_runtime(attempt, settings),
        **RESTRICTED_POD,
        **(_NO_NAME_SERVER if credentials.egress else {}),
        "terminationGracePeriodSeconds": round(settings.grace_seconds),
        "initContainers": [
            first,
            *settings.pod_fields.get("initContainers", ()),
            *others,
            *([_key_proxy(settings)] if has_proxy else []),
            *([_cache_keeper(job, settings)] if has_keeper else []),
        ],
        "containers": [executor],
        "volumes": [
            _source_volume(inputs_of(attempt), credentials),
            *([_repository_volume(credentials)] if job.spec.workspace_setup else []),
            *([_model_volume(credentials), _KEY_PROXY_VOLUME] if has_proxy else []),
            *([_TASK_VOLUME, _CACHE_KEEPER_VOLUME] if has_keeper else []),
            {"name": "inputs", "emptyDir": {"medium": "Memory", "sizeLimit": INPUTS_SIZE}},
            {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch_size}},
            *([_uploads_volume(settings)] if uploads else []),
            *([_claims_volume(settings)] if settings.data_claim else []),
            *settings.extras.volumes,
        ],
    }


def _with_limits(resources: Mapping[str, Any], operators: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the resources that a job sets. A limit that it does not set is the operator's."""
    limits = resources.get("limits", {})
    # A limit without a request is also the request: that of the operator could be larger.
    requests = {name: value for name, value in operators.get("requests", {}).items() if name not in limits}
    return {
        "requests": {**requests, **resources.get("requests", {})},
        "limits": {**operators.get("limits", {}), **limits},
    }


def _runtime(attempt: Attempt, settings: PodSettings) -> dict[str, str]:
    """Return the RuntimeClass of an attempt with the isolation `vm`. Raises GiveUp for a level that is missing."""
    if attempt.isolation_in(settings.isolation) is Isolation.VM and settings.vm_runtime_class:
        return {RUNTIME_CLASS: settings.vm_runtime_class}
    return {}


_INPUTS_MOUNT: Final = {"name": "inputs", "mountPath": INPUTS}
_SCRATCH_MOUNTS: Final = (
    {"name": "scratch", "mountPath": SCRATCH},
    {"name": "scratch", "mountPath": "/tmp", "subPath": "tmp"},  # noqa: S108, the pod's own
)


_KEY_PROXY_VOLUME: Final = {"name": "key-proxy", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
_KEY_PROXY_MOUNT: Final = {"name": "key-proxy", "mountPath": KEY_PROXY_FOLDER}

_KEY_PROXY: Final[Mapping[str, Any]] = {
    **RESTRICTED_CONTAINER,
    "name": KEY_PROXY_CONTAINER,
    "restartPolicy": "Always",  # it runs beside the executor, and ends after it
    "args": ["key-proxy", SOURCE, KEY_PROXY_FOLDER],
    "resources": KEY_PROXY_RESOURCES,
    "securityContext": {
        **RESTRICTED_CONTAINER["securityContext"],
        "runAsUser": KEY_PROXY_USER,
        "runAsGroup": KEY_PROXY_USER,
    },
    "volumeMounts": [
        {"name": "model", "mountPath": SOURCE, "readOnly": True},
        _KEY_PROXY_MOUNT,
    ],
}
"""The container of the key proxy. No other container mounts the Secret with the model's key."""


def _key_proxy(settings: PodSettings) -> dict[str, Any]:
    """Return the container of the key proxy. The operator's volumes may have certificates for the model's server."""
    extras = [{**mount, "readOnly": True} for mount in settings.extras.volume_mounts]
    return {**_KEY_PROXY, "image": settings.image, "volumeMounts": [*_KEY_PROXY["volumeMounts"], *extras]}


_CACHE_KEEPER_VOLUME: Final = {"name": "cache-keeper", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
_CACHE_KEEPER_MOUNT: Final = {"name": "cache-keeper", "mountPath": CACHE_KEEPER_FOLDER}


def _cache_keeper(job: Job, settings: PodSettings) -> dict[str, Any]:
    """Return the container of the cache keeper. No other container mounts cached folders.

    It mounts those of its scope only: setup commands, or a caller's own image, could make it follow links to others.
    """
    scope, base = cache_scope(job), base_cache_scope(job)
    base_mount = {"name": "claims", "mountPath": BASE_CACHES, "subPath": f"{CACHES_FOLDER}/{base}", "readOnly": True}
    return {
        **RESTRICTED_CONTAINER,
        "name": CACHE_KEEPER_CONTAINER,
        "image": settings.image,
        "restartPolicy": "Always",  # it runs beside the executor, and ends after it
        "args": ["cache-keeper", SOURCE, CACHE_KEEPER_FOLDER],
        "resources": _CACHE_KEEPER_RESOURCES,
        "volumeMounts": [
            {"name": "task", "mountPath": SOURCE, "readOnly": True},
            {**_CACHE_KEEPER_MOUNT, "readOnly": True},
            {"name": "claims", "mountPath": f"{CACHES}/{scope}", "subPath": f"{CACHES_FOLDER}/{scope}"},
            *([base_mount] if base else []),
            *_SCRATCH_MOUNTS,
        ],
    }


def _model_volume(credentials: PodCredentials) -> dict[str, Any]:
    task = _from_pod({TASK_FILE: TASK_ANNOTATION, **_egress_token("model", credentials)})
    sources = [task, *_secret_sources(credentials.model)]
    return {"name": "model", "projected": {"defaultMode": 0o444, "sources": sources}}


def _prepare_step(
    name: AttemptName, settings: PodSettings, earlier: AttemptName | None, *, has_proxy: bool, has_keeper: bool
) -> dict[str, Any]:
    """Return the container that claims the attempt and copies the inputs for the executor.

    No other container mounts the claim's folder, or the Secrets of MCP servers and of logins.

    earlier: the attempt whose stored files it copies, too. No other container mounts them.
    has_proxy, has_keeper: whether it also creates the token of the key proxy, and of the cache keeper.
    """
    claims = {"name": "claims", "mountPath": CLAIMS, "subPath": str(claim_path(name))}
    return {
        **RESTRICTED_CONTAINER,
        "name": PREPARE_CONTAINER,
        "args": ["prepare", SOURCE, INPUTS, *([CLAIMS] if settings.data_claim else [])],
        "env": [
            {"name": POD_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *([{"name": KEY_PROXY_VARIABLE, "value": KEY_PROXY_FOLDER}] if has_proxy else []),
            *([{"name": CACHE_KEEPER_VARIABLE, "value": CACHE_KEEPER_FOLDER}] if has_keeper else []),
            *([{"name": EARLIER_VARIABLE, "value": EARLIER}] if earlier else []),
        ],
        "volumeMounts": [
            {"name": "source", "mountPath": SOURCE, "readOnly": True},
            _INPUTS_MOUNT,
            *([claims] if settings.data_claim else []),
            *([_earlier_mount(earlier), *_SCRATCH_MOUNTS] if earlier else []),
            *([_KEY_PROXY_MOUNT] if has_proxy else []),
            *([_CACHE_KEEPER_MOUNT] if has_keeper else []),
        ],
    }


def _earlier_mount(earlier: AttemptName) -> dict[str, Any]:
    path = str(attempt_path(earlier))
    return {"name": "claims", "mountPath": EARLIER, "subPath": path, "readOnly": True}


def _clone_step(settings: PodSettings) -> dict[str, Any]:
    """Return the container that clones the repository. No other container mounts the repository's Secret."""
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


def _repository_volume(credentials: PodCredentials) -> dict[str, Any]:
    task = _from_pod({TASK_FILE: TASK_ANNOTATION, **_egress_token("repository", credentials)})
    sources = [task, *_secret_sources(credentials.repository)]
    return {"name": "repository", "projected": {"defaultMode": 0o444, "sources": sources}}


def _source_volume(inputs: AttemptInputs, credentials: PodCredentials) -> dict[str, Any]:
    """Return the volume with the inputs that `prepare` copies for the executor."""
    tokens = {**_egress_token("agent", credentials), **_egress_token("setup", credentials, EGRESS_SETUP_TOKEN_FILE)}
    prompt = {} if inputs.prompt is None else {PROMPT_FILE: PROMPT_ANNOTATION}
    texts = [_text_source(text) for text in inputs.texts]
    own = _from_pod({TASK_FILE: TASK_ANNOTATION, **prompt, **tokens})
    sources = [own, *texts, *_secret_sources(credentials.agent)]
    return {"name": "source", "projected": {"defaultMode": 0o444, "sources": sources}}


def _egress_token(part: str, credentials: PodCredentials, file: str = EGRESS_TOKEN_FILE) -> dict[str, str]:
    """Return the annotation with the token of this part by the name of its file, if the pod has such a token."""
    has_token = credentials.egress is not None and part in credentials.egress.tokens
    return {f"{SECRETS_FOLDER}/{file}": EGRESS_ANNOTATIONS[part]} if has_token else {}


def _text_source(text: TextInput) -> dict[str, Any]:
    return {"configMap": {"name": text.ref.name, "items": [{"key": text.ref.key, "path": text.file}]}}


def _from_pod(annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return the volume source of files with the pod's own annotations. annotations: by file name."""
    fields = [
        {"path": path, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
        for path, annotation in annotations.items()
    ]
    return {"downwardAPI": {"items": fields}}


_TASK_VOLUME: Final = {"name": "task", **_from_pod({TASK_FILE: TASK_ANNOTATION})}


def _secret_sources(secrets: SecretFiles) -> list[dict[str, Any]]:
    return [_secret_source(name, files) for name, files in secrets if files]  # without items, all keys would be mounted


def _secret_source(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    items = [{"key": key, "path": f"{SECRETS_FOLDER}/{file}"} for file, key in files.items()]
    return {"secret": {"name": name, "items": items}}


def _upload_mounts(files: Sequence[WorkspaceFile], settings: PodSettings) -> list[dict[str, Any]]:
    """Return the mounts of the job's files. Files of other jobs are not mounted."""
    if files and settings.uploads_claim is None:
        raise GiveUp(
            FailedCode.WORKSPACE,
            "the job has files, but the engine has no uploads volume for its pods: set LABRATS_UPLOADS_CLAIM",
        )
    folders = sorted({_folder_of(file) for file in files})
    return [
        {"name": "uploads", "mountPath": str(UPLOADS / folder), "subPath": folder, "readOnly": True}
        for folder in folders
    ]


def _folder_of(file: WorkspaceFile) -> str:
    """Return the folder to mount for a file. Raises GiveUp if it may contain files of other jobs."""
    folder, path = PurePath(file.path).parent, file.path
    if not (re.fullmatch(FILE_PATH, path) or re.fullmatch(UPLOAD_ID, str(folder))):
        raise GiveUp(FailedCode.INVALID, f"workspaceFiles: the path {path!r} must be jobs/FOLDER/NAME")
    return str(folder)


def _claims_volume(settings: PodSettings) -> dict[str, Any]:
    return {"name": "claims", "persistentVolumeClaim": {"claimName": settings.data_claim}}


def _uploads_volume(settings: PodSettings) -> dict[str, Any]:
    return {"name": "uploads", "persistentVolumeClaim": {"claimName": settings.uploads_claim, "readOnly": True}}
