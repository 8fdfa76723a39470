"""What the parts of this backend are told, by the engine's settings. Some are there only where the settings say so."""

import os
from typing import Final

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.model_files import ClusterModelFiles, ModelPodSettings
from labrats.backends.kubernetes.network_check import NetworkCheck
from labrats.backends.kubernetes.pod import PodSettings
from labrats.backends.kubernetes.receiver_manifests import ReceiverSettings
from labrats.backends.kubernetes.runner import KubernetesRunnerSettings
from labrats.settings import EngineSettings, KubernetesSettings

SHARED_WITH_RECEIVERS: Final = (
    "LABRATS_EXECUTOR_IMAGE",
    "LABRATS_EXECUTOR_IMAGES",
    "LABRATS_LOG_FORMAT",
    "LABRATS_LOG_LEVEL",
    "LABRATS_TRUSTED_PROXIES",
    "OUTBOUND_ALLOWED_CIDRS",
)
"""The settings, none of them secret, that a receiver has from the leader that provides it."""


def runner_settings(settings: EngineSettings) -> KubernetesRunnerSettings:
    kubernetes = KubernetesSettings()
    pods = PodSettings(
        image=kubernetes.executor_image,
        resources=kubernetes.executor_resources,
        scratch_size=kubernetes.executor_scratch,
        uploads_claim=kubernetes.uploads_claim,
        data_claim=kubernetes.data_claim,
        images=settings.executor_images,
        pod_fields=kubernetes.executor_pod,
        extras=kubernetes.executor_extras,
        git_addresses=settings.outbound_allowed_cidrs,
        idle_seconds=settings.agent_idle_seconds,
        output_bytes=settings.max_output_bytes,
        grace_seconds=settings.stop_grace_seconds,
        start_timeout_seconds=kubernetes.start_timeout_seconds,
        kept_seconds=round(kubernetes.finished_job_hours * 3600),
    )
    return KubernetesRunnerSettings(
        kubernetes.namespace,
        settings.data_dir / "attempts",
        pods,
        labelled_credentials=settings.labelled_credentials,
    )


def receiver_settings() -> ReceiverSettings | None:
    """How webhook sources get receivers, where there is an image to run."""
    kubernetes = KubernetesSettings()
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


def model_files(settings: EngineSettings, client: ApiClient) -> ClusterModelFiles | None:
    """What deals with models' files, where there is a volume for them."""
    kubernetes = KubernetesSettings()
    if not (kubernetes.models_claim and kubernetes.engine_image):
        return None
    environment = {
        "OUTBOUND_ALLOWED_CIDRS": ",".join(settings.outbound_allowed_cidrs),
        "LABRATS_MAX_MODEL_FILE_GIB": str(settings.max_model_file_gib),
    }
    pods = ModelPodSettings(kubernetes.engine_image, kubernetes.models_claim, environment, kubernetes.executor_pod)
    return ClusterModelFiles(client, kubernetes.namespace, pods)


def network_check(settings: EngineSettings, epoch: int) -> NetworkCheck | None:
    """What tries the network for the leader of that epoch, where there is an image to do it with."""
    kubernetes = KubernetesSettings()
    if not (kubernetes.canary_image and kubernetes.pod_ip):
        return None
    name = f"labrats-canary-{epoch}"
    return NetworkCheck(name, kubernetes.canary_image, kubernetes.pod_ip, settings.port, kubernetes.executor_pod)
