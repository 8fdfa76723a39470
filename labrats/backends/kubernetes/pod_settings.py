"""Settings of the pods of attempts, and the Secrets that they mount."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from labrats.files.attempt_inputs import TaskSettings
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.settings import PodExtras

RUNTIME_CLASS: Final = "runtimeClassName"
"""Field of a pod's spec."""
CONTAINER_ONLY: Final = IsolationLevels((Isolation.CONTAINER,), Isolation.CONTAINER)

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

    @property
    def proxied_key(self) -> str | None:
        """The name of the model's key; None for a model without one."""
        return next((key for _, keys in self.model for key in keys), None)


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
    task:          settings of the executor's task.
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
    task: TaskSettings = TaskSettings()
    grace_seconds: float = 10.0
    start_timeout_seconds: float = 300.0
    ttl_seconds: int = 86_400
    isolation: IsolationLevels = CONTAINER_ONLY
    vm_runtime_class: str | None = None
