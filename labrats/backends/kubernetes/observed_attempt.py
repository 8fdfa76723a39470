"""The observed state of one attempt: its Job and pods, as the watches report them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from labrats.backends.kubernetes.batch_objects import CONTAINER, JobObject, PodObject
from labrats.model.attempt_name import AttemptName


@dataclass
class VanishedPod:
    """A pod that the cluster has removed. reports: what its node has reported since, each of which is a time."""

    pod: PodObject
    reports: set[str] = field(default_factory=set)


@dataclass
class ObservedAttempt:
    """The observed state of an attempt. It may lag behind the cluster.

    job:        last observed state of the Job.
    job_exists: False once the Job is known to be deleted.
    pods:       existing pods by name.
    last_pod:   last observed state of the pod that started, or else of the latest one. It outlives the pod.
    vanished:   pods by name that the cluster removed, though their node has not reported that they ended.
    deadline:   time at which the cluster ends the attempt; None if it is unknown.
    changed:    event that is set, and replaced by a new one, after every change.
    """

    name: AttemptName
    job: JobObject | None = None
    job_exists: bool = False
    pods: dict[str, PodObject] = field(default_factory=dict)
    last_pod: PodObject | None = None
    vanished: dict[str, VanishedPod] = field(default_factory=dict)
    deadline: datetime | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def has_started(self) -> bool:
        """True once the executor has started."""
        return self.last_pod is not None and self.last_pod.has_started

    def has_ended(self, container: str) -> bool:
        """Return whether the container has ended. Lines that it printed may still be unread."""
        pod = self.last_pod
        ended = pod is None or pod.state_of(container).terminated is not None
        return ended or pod is None or pod.is_over or self.is_pod_deleted

    @property
    def is_pod_deleted(self) -> bool:
        """True once `last_pod` was deleted, and its log with it."""
        return self.last_pod is not None and self.last_pod.name not in self.pods

    @property
    def is_lost_with_its_node(self) -> bool:
        """True once the cluster has given up the node. The pod's log is out of reach then."""
        return self.last_pod is not None and self.last_pod.lost_with_its_node

    def has_lost_log(self, container: str) -> bool:
        """Return whether the node has ended the pod without the container, whose log is gone."""
        pod = self.last_pod
        return pod is not None and pod.is_over and pod.state_of(container).has_lost_log

    @property
    def living_pods(self) -> list[PodObject]:
        """The pods in which something may still run."""
        return [pod for pod in self.pods.values() if not pod.is_over]

    @property
    def lingering_pod(self) -> PodObject | None:
        """The pod if its executor has ended, but the pod has not: for a moment, or as another container still runs."""
        pod = self.last_pod
        if pod is None or self.is_pod_deleted or pod.is_over or not self.has_ended(CONTAINER):
            return None
        return pod

    @property
    def refused_pods(self) -> list[PodObject]:
        """The pods that did nothing, because another pod had claimed the attempt."""
        return [pod for pod in self.pods.values() if pod.was_refused]

    @property
    def is_doubled(self) -> bool:
        """True if several pods have acted, and one of them may still run."""
        acting = [pod for pod in self.pods.values() if pod.has_acted]
        return len(acting) > 1 and not all(pod.is_over for pod in acting)

    @property
    def is_abandoned(self) -> bool:
        """True if the pod that ran the attempt is deleted, and the cluster creates others, which cannot take over."""
        pod = self.last_pod
        is_deleted = pod is not None and pod.has_started and pod.name not in self.pods
        return is_deleted and bool(self.pods) and not self.creates_no_more_pods

    @property
    def creates_no_more_pods(self) -> bool:
        """True once the Job is deleted, or its end is decided."""
        return not self.job_exists or (self.job is not None and self.job.creates_no_more_pods)

    @property
    def is_over(self) -> bool:
        """True once nothing of the attempt runs or will run."""
        return self.creates_no_more_pods and not self.may_run

    @property
    def may_run(self) -> bool:
        """True while something of the attempt may run, on a node that cannot be reached, too."""
        return bool(self.living_pods or self.vanished)

    @property
    def is_known(self) -> bool:
        """True while the cluster has the Job or a pod of the attempt."""
        return self.job_exists or bool(self.pods)

    @property
    def owner_uid(self) -> str:
        """The uid of the InferenceRequest; empty if it is unknown."""
        return self.job.owner_uid if self.job else ""

    def is_of_other_owner(self, job: JobObject) -> bool:
        """Return whether this attempt and `job` belong to different InferenceRequests of the same name."""
        return self.owner_uid != job.owner_uid and bool(self.owner_uid and job.owner_uid)

    def update_job(self, job: JobObject) -> None:
        if self.job_exists and self.job and not job.metadata.is_newer_than(self.job.metadata):
            return
        self.job, self.job_exists = job, True
        if (created_at := job.metadata.creation_timestamp) and (seconds := job.spec.active_deadline_seconds):
            self.deadline = created_at + timedelta(seconds=seconds)
        self.pods = {name: pod for name, pod in self.pods.items() if self._owns(pod)}
        self.vanished = {name: each for name, each in self.vanished.items() if self._owns(each.pod)}
        if self.last_pod and not self._owns(self.last_pod):
            self.last_pod = max(self.pods.values(), key=_rank, default=None)
        self.notify_change()

    def remove_job(self) -> None:
        if self.job_exists:
            self.job_exists = False
            self.notify_change()

    def update_pod(self, pod: PodObject) -> None:
        if not self._owns(pod):
            return
        if (known := self.pods.get(pod.name)) and not pod.metadata.is_newer_than(known.metadata):
            return
        self.pods[pod.name] = pod
        last = self.last_pod
        if last is None or last.name == pod.name or (not last.has_started and _rank(pod) >= _rank(last)):
            self.last_pod = pod
        self.notify_change()

    def replace_pods(self, pods: Sequence[PodObject]) -> None:
        """Replace the known pods by `pods`, which are all that exist."""
        found = {pod.name for pod in pods}
        for pod in pods:
            self.update_pod(pod)
        for pod in [pod for name, pod in self.pods.items() if name not in found]:
            self.remove_pod(pod)

    def remove_pod(self, pod: PodObject) -> None:
        """Note that the cluster has removed a pod, whose last state is `pod`."""
        has_ended = pod.is_over or pod.lost_with_its_node or not pod.spec.node_name
        is_known = self.pods.pop(pod.name, None) is not None
        if is_known and not has_ended:
            self.vanished[pod.name] = VanishedPod(pod)
        elif has_ended and pod.name in self.vanished:  # a list was ahead of the watch
            self.note_end(pod)
        elif not is_known:
            return
        self.notify_change()

    def note_end(self, pod: PodObject) -> None:
        """Note that nothing of a pod that has vanished runs any more."""
        self.vanished.pop(pod.name, None)

    def _owns(self, pod: PodObject) -> bool:
        """Return whether the pod belongs to the InferenceRequest, and not to an earlier one of the same name."""
        return not self.owner_uid or pod.owner_uid in ("", self.owner_uid)

    def notify_change(self) -> None:
        """Wake all tasks that wait for a change."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


def _rank(pod: PodObject) -> tuple[bool, bool]:
    """Return a sort key for the pods of an attempt. The pod that acts comes last."""
    return pod.has_started, not pod.was_refused
