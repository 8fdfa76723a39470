"""The Jobs and pods of attempts, as far as they are looked at. Everything else in them is passed over unread."""

from datetime import datetime
from typing import Final

import msgspec

from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import CLAIMED_STATUS

JOB_LABEL: Final = "labrats.work/job"
"""On each Job and pod of ours: the InferenceRequest it belongs to."""

ATTEMPT_LABEL: Final = "labrats.work/attempt"
"""The attempt's number."""

TASK_ANNOTATION: Final = "labrats.work/task"
PROMPT_ANNOTATION: Final = "labrats.work/prompt"
"""On pods: the executor's `job.json`, and a prompt that has no ConfigMap."""

OWNER_ANNOTATION: Final = "labrats.work/job-uid"
"""On pods: the uid of that InferenceRequest. When it is gone, another may have its name while the pod is there yet."""

FAILED_CODE_ANNOTATION: Final = "labrats.work/failed-code"
FAILED_REASON_ANNOTATION: Final = "labrats.work/failed-reason"
"""On Jobs that the engine ended of its own accord: why. They outlive the engine that decided it."""

CONTAINER: Final = "executor"
PREPARE_CONTAINER: Final = "prepare"
CLONE_CONTAINER: Final = "clone"
"""The containers of an attempt's pod. `prepare`, and `clone` where there is a repository, end before `executor` starts.
"""


_OURS: Final = (PREPARE_CONTAINER, CLONE_CONTAINER, CONTAINER)


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A part of a Kubernetes object, absent fields at their defaults."""


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
    ready: int = 0


class JobObject(_Part, frozen=True, kw_only=True):
    """A `batch/v1` Job: one attempt."""

    metadata: ObjectMeta
    spec: JobObjectSpec = JobObjectSpec()
    status: JobObjectStatus = JobObjectStatus()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def attempt(self) -> AttemptName | None:
        """The name of its attempt; None for a Job that somebody else named and labelled."""
        return AttemptName.parse(self.name)

    @property
    def owner_uid(self) -> str:
        """The uid of the InferenceRequest it belongs to; empty where it belongs to none."""
        owners = self.metadata.owner_references
        return next((owner.uid for owner in owners if owner.kind == "InferenceRequest"), "")

    @property
    def starts_no_more_pods(self) -> bool:
        """Whether the Job controller has decided how it ends. Its pods may still be ending."""
        return any(each.type in _DECIDED and each.status == "True" for each in self.status.conditions)

    @property
    def has_ended(self) -> bool:
        """Whether it has, and none of its pods runs any more."""
        return bool(self.condition("Complete") or self.condition("Failed"))

    def condition(self, kind: str, status: str = "True") -> ObjectCondition | None:
        """The condition of this type, if it has this status."""
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
        """Return whether the container runs or has run, so that there is a log to read."""
        return self.running is not None or self.terminated is not None

    @property
    def has_failed(self) -> bool:
        """Return whether the container ended with a failure, after which no later one starts."""
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
    reason: str = ""
    message: str = ""
    conditions: tuple[ObjectCondition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class PodObject(_Part, frozen=True, kw_only=True):
    """A pod of such a Job. There is one, or none; more only where the cluster itself is in trouble."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def attempt(self) -> AttemptName | None:
        """The name of its attempt, and so of its Job; None for a pod that somebody else labelled."""
        labels = self.metadata.labels
        return AttemptName.parse(f"{labels.get(JOB_LABEL, '')}-{labels.get(ATTEMPT_LABEL, '')}")

    @property
    def owner_uid(self) -> str:
        """The uid of the InferenceRequest it belongs to; empty where it does not say."""
        return self.metadata.annotations.get(OWNER_ANNOTATION, "")

    @property
    def texts(self) -> list[ConfigMapSource]:
        """The ConfigMaps that its executor reads from: the prompt, the instructions."""
        sources = (source.config_map for volume in self.spec.volumes for source in volume.projected.sources)
        return [config_map for config_map in sources if config_map]

    @property
    def containers(self) -> list[Container]:
        """The engine's containers in the order in which they run. An operator or a mesh may have added others."""
        return [each for each in (*self.spec.init_containers, *self.spec.containers) if each.name in _OURS]

    @property
    def container(self) -> Container:
        """The container that decides its state: the first that has not succeeded, or else the last."""
        begun = (each for each in self.containers if not self._has_succeeded(each.name))
        return next(begun, self.containers[-1] if self.containers else Container())

    @property
    def state(self) -> ContainerState:
        """The state of that container."""
        return self.state_of(self.container.name)

    def state_of(self, container: str) -> ContainerState:
        """The state of the container by that name; an empty one while its node reports none."""
        statuses = (*self.status.init_container_statuses, *self.status.container_statuses)
        return next((each.state for each in statuses if each.name == container), ContainerState())

    @property
    def reporting(self) -> list[str]:
        """The containers that print the attempt's events, in order. `prepare` prints only why it failed."""
        if self.was_refused:
            return []
        names = [each.name for each in self.containers]
        return [name for name in names if name != PREPARE_CONTAINER or self.state_of(name).has_failed]

    @property
    def was_refused(self) -> bool:
        """True if the pod did nothing, since another pod had claimed the attempt."""
        end = self.state_of(PREPARE_CONTAINER).terminated
        return end is not None and end.exit_code == CLAIMED_STATUS

    @property
    def has_started(self) -> bool:
        """True once a container that prints the attempt's events has started."""
        return any(self.state_of(name).has_started for name in self.reporting)

    @property
    def acts(self) -> bool:
        """True once the pod has begun to clone or to run the executor."""
        return any(self.state_of(name).has_started for name in (CLONE_CONTAINER, CONTAINER))

    def _has_succeeded(self, container: str) -> bool:
        end = self.state_of(container).terminated
        return end is not None and end.exit_code == 0

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs, and nothing will.

        A kubelet says that a pod has ended once all its containers have. For a node that is gone for good the cluster
        says it. A pod that was deleted before it had a node gets none any more.
        """
        deleted_without_node = self.metadata.deletion_timestamp is not None and not self.spec.node_name
        return self.status.phase in ("Succeeded", "Failed") or deleted_without_node

    @property
    def lost_with_its_node(self) -> bool:
        """Whether it is over only because its node was deleted, or declared to be out of service.

        A taint drives pods from nodes that are well, too. Their kubelets say that the containers have ended.
        """
        disruption = self.condition("DisruptionTarget")
        if disruption is None or not self.spec.node_name:
            return False
        silent = self.state.terminated is None
        return disruption.reason == "DeletionByPodGC" or (disruption.reason == "DeletionByTaintManager" and silent)

    def condition(self, kind: str, status: str = "True") -> ObjectCondition | None:
        """The condition of this type, if it has this status."""
        return next((each for each in self.status.conditions if (each.type, each.status) == (kind, status)), None)
