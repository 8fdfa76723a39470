"""The manifest of the Job that runs one attempt, and of its pod. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from labrats.backends.kubernetes.batch_objects import (
    ATTEMPT_LABEL,
    CONTAINER,
    EGRESS_ANNOTATIONS,
    JOB_LABEL,
    OWNER_ANNOTATION,
    PREPARE_CONTAINER,
    PROMPT_ANNOTATION,
    TASK_ANNOTATION,
)
from labrats.backends.kubernetes.codec import LABRATS_API
from labrats.backends.kubernetes.failures import NEVER_STARTED, failure_annotations
from labrats.backends.kubernetes.pod_containers import cache_keeper, clone_step, key_proxy, prepare_step
from labrats.backends.kubernetes.pod_settings import RUNTIME_CLASS, PodCredentials, PodSettings
from labrats.backends.kubernetes.pod_volumes import (
    BASE_CACHES,
    CACHE_KEEPER_VOLUME,
    CACHES,
    EARLIER_FILES,
    INPUTS,
    INPUTS_MOUNT,
    INPUTS_SIZE,
    KEY_PROXY_VOLUME,
    SCRATCH,
    SCRATCH_MOUNTS,
    TASK_VOLUME,
    UPLOADS,
    claims_volume,
    model_volume,
    repository_volume,
    source_volume,
    upload_mounts,
    uploads_volume,
)
from labrats.backends.kubernetes.restricted_pod import (
    CONFINED_LABELS,
    EXECUTOR_LABELS,
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
)
from labrats.files.attempt_inputs import inputs_of, task_of
from labrats.model.attempt_name import AttemptName
from labrats.model.config import GLOBAL_LAYER
from labrats.model.errors import GiveUp
from labrats.model.image_name import problem_of_image
from labrats.model.isolation import Isolation
from labrats.model.job import FailedCode, Job, base_cache_scope, cache_scope
from labrats.model.protocol import CLAIMED_STATUS, Resumption, Task
from labrats.model.record import encode
from labrats.ports import Attempt

_NOT_DISRUPTED: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations that stop autoscalers from evicting an agent: the tokens it has used would be lost."""

_NO_NAME_SERVER: Final = {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["127.0.0.1"]}}
"""Fields of a pod that reaches no name server: a look-up fails at once instead of after a timeout."""

_NO_PING: Final = {"sysctls": [{"name": "net.ipv4.ping_group_range", "value": "1 0"}]}
"""Security context of a pod in which no group may open ICMP sockets, which some network plugins let through."""

DEADLINE_MARGIN_SECONDS: Final = 600
"""Time after the engine's own deadline at which the cluster ends an attempt, should the engine not do so."""


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
    task = _task(attempt, settings, EARLIER_FILES if earlier else None)
    task = replace(task, policy_tests=credentials.policy_tests, proxied_key=credentials.proxied_key)
    if egress:
        task = replace(task, egress_proxy=egress.address)
    annotations = {OWNER_ANNOTATION: job.metadata.uid, TASK_ANNOTATION: encode(task).decode()}
    if egress:
        annotations |= {EGRESS_ANNOTATIONS[part]: token for part, token in egress.tokens.items()}
    prompt = inputs_of(attempt).prompt
    return annotations if prompt is None else annotations | {PROMPT_ANNOTATION: prompt}


def _task(attempt: Attempt, settings: PodSettings, kept: str | None) -> Task:
    """Return the executor's task. kept: the folder with the stored files of an earlier attempt."""
    task = task_of(attempt, settings.task, workspace=f"{SCRATCH}/workspace", uploads=UPLOADS)
    resumption = attempt.earlier_session and Resumption(session=attempt.earlier_session, kept=kept)
    continuation = task.continuation and replace(
        task.continuation,
        session=attempt.continued_session,
        kept=None if resumption else kept,
        at_head=attempt.starts_at_head,
    )
    return replace(
        task,
        resumption=resumption,
        continuation=continuation,
        on_cluster=True,
        caches=f"{CACHES}/{cache_scope(attempt.job)}" if keeps_caches(attempt.job, settings) else None,
        base_caches=BASE_CACHES if keeps_caches(attempt.job, settings) and base_cache_scope(attempt.job) else None,
    )


def keeps_caches(job: Job, settings: PodSettings) -> bool:
    """Return whether the pod of a job has a cache keeper."""
    setup = job.spec.workspace_setup
    return bool(setup and setup.setup and setup.cache and settings.data_claim and settings.task.caches_bytes)


def _pod(
    attempt: Attempt, credentials: PodCredentials, settings: PodSettings, earlier: AttemptName | None
) -> dict[str, Any]:
    """Return the pod's spec, which fulfils Pod Security `restricted`."""
    job = attempt.job
    uploads = upload_mounts(job.spec.files, settings)
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
        "volumeMounts": [INPUTS_MOUNT, *SCRATCH_MOUNTS, *uploads, *settings.extras.volume_mounts],
    }
    has_proxy, has_keeper = credentials.has_proxy, keeps_caches(job, settings)
    steps = [
        prepare_step(attempt.name, settings, earlier, has_proxy=has_proxy, has_keeper=has_keeper),
        *([clone_step(settings)] if job.spec.workspace_setup else []),
    ]
    # The steps never use an image that a job names: they have credentials that the agent must not read.
    first, *others = [{**step, "image": settings.image, "resources": resources} for step in steps]
    runtime = {**settings.pod_fields, **_runtime(attempt, settings)}
    return {
        **runtime,
        **RESTRICTED_POD,
        **(_confinement(runtime) if credentials.egress else {}),
        "terminationGracePeriodSeconds": round(settings.grace_seconds),
        "initContainers": [
            first,
            *settings.pod_fields.get("initContainers", ()),
            *others,
            *([key_proxy(settings)] if has_proxy else []),
            *([cache_keeper(job, settings)] if has_keeper else []),
        ],
        "containers": [executor],
        "volumes": [
            source_volume(inputs_of(attempt), credentials),
            *([repository_volume(credentials)] if job.spec.workspace_setup else []),
            *([model_volume(credentials), KEY_PROXY_VOLUME] if has_proxy else []),
            *([TASK_VOLUME, CACHE_KEEPER_VOLUME] if has_keeper else []),
            {"name": "inputs", "emptyDir": {"medium": "Memory", "sizeLimit": INPUTS_SIZE}},
            {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch_size}},
            *([uploads_volume(settings)] if uploads else []),
            *([claims_volume(settings)] if settings.data_claim else []),
            *settings.extras.volumes,
        ],
    }


def _confinement(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a pod with a network rule. runtime: its fields that the operator sets."""
    if runtime.get(RUNTIME_CLASS):  # such as gVisor, which may refuse settings of the kernel
        return _NO_NAME_SERVER
    return {**_NO_NAME_SERVER, "securityContext": {**RESTRICTED_POD["securityContext"], **_NO_PING}}


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
