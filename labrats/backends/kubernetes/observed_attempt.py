"""What the cluster shows of one attempt: its Job and pods, as the watches have them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from labrats.backends.kubernetes.batch_objects import JobObject, PodObject
from labrats.model.attempt_name import AttemptName


@dataclass
class ObservedAttempt:
    """One attempt. It may lag behind the cluster.

    job:        the Job as it is, or last was.  job_exists: whether it still is, as far as is known.
    pods:       those that exist, by name.
    last_pod:   the pod that matters, kept when it is gone: the one that started, or else the latest that may start.
    changed:    set, and replaced by another, whenever something has changed.
    """

    name: AttemptName
    job: JobObject | None = None
    job_exists: bool = False
    pods: dict[str, PodObject] = field(default_factory=dict)
    last_pod: PodObject | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def has_started(self) -> bool:
        """Whether its executor runs or has run."""
        return self.last_pod is not None and self.last_pod.has_started

    def has_ended(self, container: str) -> bool:
        """Return whether that container prints nothing any more. Earlier lines may still be unread."""
        pod = self.last_pod
        ended = pod is None or pod.state_of(container).terminated is not None
        return ended or pod is None or pod.is_over or pod.name not in self.pods

    @property
    def is_lost_with_its_node(self) -> bool:
        """Whether the cluster has given up the node, and nobody can be asked any more what the executor said."""
        return self.last_pod is not None and self.last_pod.lost_with_its_node

    @property
    def living_pods(self) -> list[PodObject]:
        """Those in which something may still run."""
        return [pod for pod in self.pods.values() if not pod.is_over]

    @property
    def refused_pods(self) -> list[PodObject]:
        """Those that did nothing, since another had claimed the attempt."""
        return [pod for pod in self.pods.values() if pod.was_refused]

    @property
    def is_doubled(self) -> bool:
        """True if several pods act, or have acted while one still runs: nothing prevented the second."""
        acting = [pod for pod in self.pods.values() if pod.acts]
        return len(acting) > 1 and not all(pod.is_over for pod in acting)

    @property
    def is_abandoned(self) -> bool:
        """True if the pod that ran the attempt is gone, and the cluster creates others, which cannot take it over."""
        pod = self.last_pod
        gone = pod is not None and pod.has_started and pod.name not in self.pods
        return gone and bool(self.pods) and not self.makes_no_more_pods

    @property
    def makes_no_more_pods(self) -> bool:
        """Whether its Job is gone, or has decided how it ends."""
        return not self.job_exists or (self.job is not None and self.job.starts_no_more_pods)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs, and nothing will."""
        return self.makes_no_more_pods and not self.living_pods

    @property
    def is_known(self) -> bool:
        """Whether the cluster has anything of it."""
        return self.job_exists or bool(self.pods)

    @property
    def owner_uid(self) -> str:
        """The uid of the InferenceRequest that it is an attempt of; empty where that is not known."""
        return self.job.owner_uid if self.job else ""

    def is_of_another(self, job: JobObject) -> bool:
        """Whether it is of an earlier InferenceRequest, of the same name, than `job`."""
        return self.owner_uid != job.owner_uid and bool(self.owner_uid and job.owner_uid)

    def job_seen(self, job: JobObject) -> None:
        if self.job_exists and self.job and not job.metadata.is_newer_than(self.job.metadata):
            return
        self.job, self.job_exists = job, True
        self.pods = {name: pod for name, pod in self.pods.items() if self._may_have(pod)}
        if self.last_pod and not self._may_have(self.last_pod):
            self.last_pod = max(self.pods.values(), key=_rank, default=None)
        self.touch()

    def job_removed(self) -> None:
        if self.job_exists:
            self.job_exists = False
            self.touch()

    def pod_seen(self, pod: PodObject) -> None:
        if not self._may_have(pod):
            return
        if (known := self.pods.get(pod.name)) and not pod.metadata.is_newer_than(known.metadata):
            return
        self.pods[pod.name] = pod
        last = self.last_pod
        if last is None or last.name == pod.name or (not last.has_started and _rank(pod) >= _rank(last)):
            self.last_pod = pod
        self.touch()

    def pods_found(self, pods: Sequence[PodObject]) -> None:
        """These are all that there are."""
        found = {pod.name for pod in pods}
        for pod in pods:
            self.pod_seen(pod)
        self.pods = {name: pod for name, pod in self.pods.items() if name in found}

    def pod_removed(self, pod: PodObject) -> None:
        if self.pods.pop(pod.name, None):
            self.touch()

    def _may_have(self, pod: PodObject) -> bool:
        """A pod may still be there although its InferenceRequest is not, and another has the name."""
        return not self.owner_uid or pod.owner_uid in ("", self.owner_uid)

    def touch(self) -> None:
        """Wake whoever waits for a change."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


def _rank(pod: PodObject) -> tuple[bool, bool]:
    """Return the sort key of a pod among the pods of its attempt: the one that acts comes last."""
    return pod.has_started, not pod.was_refused
