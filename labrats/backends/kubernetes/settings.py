"""The settings of the parts of this backend, made of those of the engine. None for a part that is not configured."""

import os
from dataclasses import replace
from typing import Final

from msgspec import structs

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.model_files import ClusterModelFiles, ModelPodSettings
from labrats.backends.kubernetes.network_check import NetworkCheck
from labrats.backends.kubernetes.pod_settings import RUNTIME_CLASS, PodSettings
from labrats.backends.kubernetes.receiver_manifests import ReceiverSettings
from labrats.backends.kubernetes.runner import PARTS_SECONDS, KubernetesRunnerSettings
from labrats.files.attempt_inputs import TaskSettings
from labrats.model.errors import LabratsError
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.protocol import ResourceLimits
from labrats.model.sizes import read_size
from labrats.settings import EngineSettings, KubernetesSettings

SHARED_WITH_RECEIVERS: Final = (
    "LABRATS_EGRESS_PROXY",
    "LABRATS_EVENT_JOBS_PER_THREAD",
    "LABRATS_EXECUTOR_IMAGE",
    "LABRATS_EXECUTOR_IMAGES",
    "LABRATS_ISOLATION",
    "LABRATS_LOG_FORMAT",
    "LABRATS_LOG_LEVEL",
    "LABRATS_NETWORK",
    "LABRATS_TRUSTED_PROXIES",
    "LABRATS_UNTRUSTED_ISOLATION",
    "LABRATS_VM_RUNTIME_CLASS",
    "OUTBOUND_ALLOWED_CIDRS",
)
"""Environment variables that receivers inherit from the leader. None of them is secret."""


def runner_settings(settings: EngineSettings, kubernetes: KubernetesSettings) -> KubernetesRunnerSettings:
    task = TaskSettings(
        git_addresses=settings.outbound_allowed_cidrs,
        idle_seconds=settings.agent_idle_seconds,
        output_bytes=settings.max_output_bytes,
        limits=executor_limits(settings.agent_limits, kubernetes.executor_scratch),
        # The folders share the engine's volume, so that an operator must choose their size.
        caches_bytes=round(settings.cache_gib * 2**30) if "cache_gib" in settings.model_fields_set else 0,
        kept_free_bytes=None if settings.free_gib is None else round(settings.free_gib * 2**30),
    )
    pods = PodSettings(
        image=kubernetes.executor_image,
        resources=kubernetes.executor_resources,
        scratch_size=kubernetes.executor_scratch,
        uploads_claim=kubernetes.uploads_claim,
        data_claim=kubernetes.data_claim,
        images=settings.executor_images,
        pod_fields=kubernetes.executor_pod,
        extras=kubernetes.executor_extras,
        task=task,
        grace_seconds=settings.stop_grace_seconds,
        start_timeout_seconds=kubernetes.start_timeout_seconds,
        ttl_seconds=round(kubernetes.finished_job_hours * 3600),
        isolation=isolation_levels(settings, kubernetes),
        vm_runtime_class=kubernetes.vm_runtime_class,
    )
    return KubernetesRunnerSettings(
        kubernetes.namespace,
        settings.data_dir / "attempts",
        pods,
        parts_seconds=PARTS_SECONDS,
        labelled_credentials=settings.labelled_credentials,
        egress_proxy=kubernetes.egress_proxy,
    )


def executor_limits(limits: ResourceLimits, scratch: str) -> ResourceLimits:
    """Return the limits that the executor enforces, with the size of its volume, a quantity, as a limit on the disk.

    The node enforces that size, too, but it does not see files without a name, or below a path that is too long for it.
    """
    try:
        size = read_size(scratch)
    except ValueError:  # the API server decides whether it is a quantity
        return limits
    if limits.disk_bytes is not None and limits.disk_bytes <= size:
        return limits
    return structs.replace(limits, disk_bytes=size, disk_setting="executor.scratch")


def isolation_levels(settings: EngineSettings, kubernetes: KubernetesSettings) -> IsolationLevels:
    """Return the levels of isolation on the cluster. Raises LabratsError if it lacks the one that the settings name."""
    vm_class = kubernetes.vm_runtime_class
    uses_vms = vm_class is not None and kubernetes.executor_pod.get(RUNTIME_CLASS) == vm_class
    levels = IsolationLevels(
        available=(Isolation.VM,) if uses_vms else (Isolation.CONTAINER, *([Isolation.VM] if vm_class else [])),
        default=Isolation.VM if uses_vms else Isolation.CONTAINER,
        untrusted=settings.isolation_of_untrusted,
        advice="" if vm_class else "For vm, name a runtime class in LABRATS_VM_RUNTIME_CLASS.",
    )
    if settings.isolation is None:
        return levels
    if (level := levels.at_least(settings.isolation)) is None:
        raise LabratsError(f"LABRATS_ISOLATION {levels.problem_of(settings.isolation)}")
    return replace(levels, default=level)


def receiver_settings(kubernetes: KubernetesSettings) -> ReceiverSettings | None:
    """Return the settings of receivers; None without an image for them."""
    if not kubernetes.receiver_image:
        return None
    return ReceiverSettings(
        namespace=kubernetes.namespace,
        image=kubernetes.receiver_image,
        account=kubernetes.receiver_account,
        pod_fields=kubernetes.receiver_pod,
        environment={name: os.environ[name] for name in SHARED_WITH_RECEIVERS if name in os.environ},
        resources=kubernetes.receiver_resources,
        extras=kubernetes.receiver_extras,
    )


def model_files(
    settings: EngineSettings, kubernetes: KubernetesSettings, client: ApiClient
) -> ClusterModelFiles | None:
    """Return the files of local models; None without a volume for them."""
    if not (kubernetes.models_claim and kubernetes.engine_image):
        return None
    environment = {
        "OUTBOUND_ALLOWED_CIDRS": ",".join(settings.outbound_allowed_cidrs),
        "LABRATS_MAX_MODEL_FILE_GIB": str(settings.max_model_file_gib),
    }
    pods = ModelPodSettings(kubernetes.engine_image, kubernetes.models_claim, environment, kubernetes.executor_pod)
    return ClusterModelFiles(client, kubernetes.namespace, pods)


def network_check(settings: EngineSettings, kubernetes: KubernetesSettings, epoch: int) -> NetworkCheck | None:
    """Return the network check of the leader with this epoch; None without an image for it."""
    if not (kubernetes.canary_image and kubernetes.pod_ip):
        return None
    name = f"labrats-canary-{epoch}"
    return NetworkCheck(name, kubernetes.canary_image, kubernetes.pod_ip, settings.port, kubernetes.executor_pod)
