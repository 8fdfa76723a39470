"""The fields of Jobs and pods that the engine reads. Other fields are not decoded."""

from datetime import datetime
from typing import Final

import msgspec

from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import CLAIMED_STATUS

JOB_LABEL: Final = "labrats.work/job"
"""Label of Jobs and pods: the name of the InferenceRequest they belong to."""

ATTEMPT_LABEL: Final = "labrats.work/attempt"
"""Label of Jobs and pods: the number of the attempt."""

TASK_ANNOTATION: Final = "labrats.work/task"
PROMPT_ANNOTATION: Final = "labrats.work/prompt"
"""Annotations of pods: the executor's `job.json`, and a prompt that is not in a ConfigMap."""

EGRESS_ANNOTATIONS: Final = {part: f"labrats.work/egress-{part}" for part in ("agent", "setup", "repository", "model")}
"""Annotations of pods with a network rule: the token of each part for the egress proxy. Only containers with the image
of Labrats mount them; the executor gets copies that are bound to the pod. No other pod may connect to the proxy.
"""

OWNER_ANNOTATION: Final = "labrats.work/job-uid"
"""Annotation of pods: the uid of the InferenceRequest. A later one may have its name while the pod still exists."""

FAILED_CODE_ANNOTATION: Final = "labrats.work/failed-code"
FAILED_REASON_ANNOTATION: Final = "labrats.work/failed-reason"
"""Annotations of Jobs that the engine made fail: the reason, for later engines, too."""

CONTAINER: Final = "executor"
PREPARE_CONTAINER: Final = "prepare"
CLONE_CONTAINER: Final = "clone"
"""Names of the containers of an attempt's pod. `prepare`, and `clone` for a job with a repository, run first."""

KEY_PROXY_CONTAINER: Final = "key-proxy"
CACHE_KEEPER_CONTAINER: Final = "cache-keeper"
"""Name of the container of the key proxy, which runs beside the executor and prints no events."""


_CONTAINERS: Final = (PREPARE_CONTAINER, CLONE_CONTAINER, CONTAINER)


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A part of a Kubernetes object. Absent fields have their defaults."""


class ObjectOwner(_Part, frozen=True, kw_only=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class ObjectMeta(_Part, frozen=True, kw_only=True):
    name: str
    uid: str = ""
    resource_version: str = "0"
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[ObjectOwner, ...] = ()

    def is_newer_than(self, other: "ObjectMeta") -> bool:
        return self.uid != other.uid or int(self.resource_version) > int(other.resource_version)


class ObjectCondition(_Part, frozen=True, kw_only=True):
    type: str
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class JobObjectSpec(_Part, frozen=True, kw_only=True):
    active_deadline_seconds: int | None = None


class JobObjectStatus(_Part, frozen=True, kw_only=True):
    conditions: tuple[ObjectCondition, ...] = ()
    failed: int = 0
    ready: int = 0


class JobObject(_Part, frozen=True, kw_only=True):
    """The `batch/v1` Job of an attempt."""

    metadata: ObjectMeta
    spec: JobObjectSpec = JobObjectSpec()
    status: JobObjectStatus = JobObjectStatus()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def attempt(self) -> AttemptName | None:
        """The name of the attempt; None for a foreign Job with our label."""
        return AttemptName.parse(self.name)

    @property
    def owner_uid(self) -> str:
        """The uid of the InferenceRequest it belongs to; empty if there is none."""
        owners = self.metadata.owner_references
        return next((owner.uid for owner in owners if owner.kind == "InferenceRequest"), "")

    @property
    def creates_no_more_pods(self) -> bool:
        """True once the end of the Job is decided. Its pods may still be running.

        A failed pod decides it: the backoffLimit is 0. After an outage, the Job controller counted a pod that
        was force-deleted, and set no condition for minutes.
        """
        is_decided = any(each.type in _DECIDED and each.status == "True" for each in self.status.conditions)
        return is_decided or self.status.failed > 0

    @property
    def has_ended(self) -> bool:
        """True once the Job has ended and none of its pods runs."""
        return bool(self.condition("Complete") or self.condition("Failed"))

    def condition(self, kind: str, status: str = "True") -> ObjectCondition | None:
        """Return the condition of this type if it has this status."""
        return next((each for each in self.status.conditions if (each.type, each.status) == (kind, status)), None)


_DECIDED: Final = frozenset({"Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"})


class ContainerWaiting(_Part, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


class ContainerRunning(_Part, frozen=True, kw_only=True):
    started_at: datetime | None = None


class ContainerTerminated(_Part, frozen=True, kw_only=True):
    exit_code: int = 0
    reason: str = ""
    message: str = ""


class ContainerState(_Part, frozen=True, kw_only=True):
    waiting: ContainerWaiting | None = None
    running: ContainerRunning | None = None
    terminated: ContainerTerminated | None = None

    @property
    def has_started(self) -> bool:
        """True once the container has started, so that it has a log."""
        return self.running is not None or self.terminated is not None

    @property
    def has_lost_log(self) -> bool:
        """True if the node no longer had the container when the pod ended, as may be after an eviction."""
        return self.terminated is not None and self.terminated.reason == "ContainerStatusUnknown"

    @property
    def has_failed(self) -> bool:
        """True once the container has failed. No later container starts then."""
        return self.terminated is not None and self.terminated.exit_code != 0


class ContainerStatus(_Part, frozen=True, kw_only=True):
    name: str = ""
    state: ContainerState = ContainerState()


class ContainerResources(_Part, frozen=True, kw_only=True):
    limits: dict[str, str | int | float] = {}


class Container(_Part, frozen=True, kw_only=True):
    name: str = ""
    image: str = ""
    resources: ContainerResources = ContainerResources()


class KeyToPath(_Part, frozen=True, kw_only=True):
    key: str = ""
    path: str = ""


class ConfigMapObject(_Part, frozen=True, kw_only=True):
    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}


class ServiceSpec(_Part, frozen=True, kw_only=True):
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    selector: dict[str, str] = {}


class ServiceObject(_Part, frozen=True, kw_only=True):
    spec: ServiceSpec = ServiceSpec()


class LeaseSpec(_Part, frozen=True, kw_only=True):
    renew_time: str = ""


class LeaseObject(_Part, frozen=True, kw_only=True):
    spec: LeaseSpec = LeaseSpec()


class ConfigMapSource(_Part, frozen=True, kw_only=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()


class VolumeSource(_Part, frozen=True, kw_only=True):
    config_map: ConfigMapSource | None = None


class ProjectedVolume(_Part, frozen=True, kw_only=True):
    sources: tuple[VolumeSource, ...] = ()


class Volume(_Part, frozen=True, kw_only=True):
    projected: ProjectedVolume = ProjectedVolume()


class PodSpec(_Part, frozen=True, kw_only=True):
    node_name: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    active_deadline_seconds: int | None = None
    volumes: tuple[Volume, ...] = ()


class PodStatus(_Part, frozen=True, kw_only=True):
    phase: str = "Pending"
    pod_ip: str = msgspec.field(default="", name="podIP")
    reason: str = ""
    message: str = ""
    conditions: tuple[ObjectCondition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class PodObject(_Part, frozen=True, kw_only=True):
    """A pod of such a Job. A Job has at most one, unless the cluster is in trouble."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def attempt(self) -> AttemptName | None:
        """The name of the attempt, by the labels; None for a foreign pod with our label."""
        labels = self.metadata.labels
        return AttemptName.parse(f"{labels.get(JOB_LABEL, '')}-{labels.get(ATTEMPT_LABEL, '')}")

    @property
    def owner_uid(self) -> str:
        """The uid of the InferenceRequest it belongs to; empty if it is not annotated."""
        return self.metadata.annotations.get(OWNER_ANNOTATION, "")

    @property
    def texts(self) -> list[ConfigMapSource]:
        """The ConfigMaps with the executor's prompt and instructions."""
        sources = (source.config_map for volume in self.spec.volumes for source in volume.projected.sources)
        return [config_map for config_map in sources if config_map]

    @property
    def containers(self) -> list[Container]:
        """The engine's containers in the order in which they run, without those that a service mesh added."""
        return [each for each in (*self.spec.init_containers, *self.spec.containers) if each.name in _CONTAINERS]

    @property
    def container(self) -> Container:
        """The container that determines the pod's state: the first that has not succeeded, or else the last."""
        unfinished = (each for each in self.containers if not self._has_succeeded(each.name))
        return next(unfinished, self.containers[-1] if self.containers else Container())

    @property
    def state(self) -> ContainerState:
        """The state of `container`."""
        return self.state_of(self.container.name)

    def state_of(self, container: str) -> ContainerState:
        """Return the state of a container; an empty one before the node reports any."""
        statuses = (*self.status.init_container_statuses, *self.status.container_statuses)
        return next((each.state for each in statuses if each.name == container), ContainerState())

    @property
    def reporting(self) -> list[str]:
        """The containers whose logs have events, in order. `prepare` prints one only if it fails."""
        if self.was_refused:
            return []
        names = [each.name for each in self.containers]
        return [name for name in names if name != PREPARE_CONTAINER or self.state_of(name).has_failed]

    @property
    def was_refused(self) -> bool:
        """True if the pod did nothing, because another pod had claimed the attempt."""
        end = self.state_of(PREPARE_CONTAINER).terminated
        return end is not None and end.exit_code == CLAIMED_STATUS

    @property
    def has_started(self) -> bool:
        """True once a container whose log has events has started."""
        return any(self.state_of(name).has_started for name in self.reporting)

    @property
    def has_acted(self) -> bool:
        """True once the pod has started to clone the repository or to run the executor."""
        return any(self.state_of(name).has_started for name in (CLONE_CONTAINER, CONTAINER))

    def _has_succeeded(self, container: str) -> bool:
        end = self.state_of(container).terminated
        return end is not None and end.exit_code == 0

    @property
    def is_over(self) -> bool:
        """True once nothing of the pod runs or will run.

        The kubelet reports a final phase after all containers have ended. For a node that is lost, the cluster does. A
        pod that was deleted before it was scheduled is never assigned to a node.
        """
        deleted_without_node = self.metadata.deletion_timestamp is not None and not self.spec.node_name
        return self.status.phase in ("Succeeded", "Failed") or deleted_without_node

    @property
    def lost_with_its_node(self) -> bool:
        """True if the pod ended because its node was deleted or declared out of service.

        A taint also evicts pods from healthy nodes, but then the kubelet reports how the containers ended.
        """
        disruption = self.condition("DisruptionTarget")
        if disruption is None or not self.spec.node_name:
            return False
        unreported = self.state.terminated is None
        return disruption.reason == "DeletionByPodGC" or (disruption.reason == "DeletionByTaintManager" and unreported)

    def condition(self, kind: str, status: str = "True") -> ObjectCondition | None:
        """Return the condition of this type if it has this status."""
        return next((each for each in self.status.conditions if (each.type, each.status) == (kind, status)), None)
