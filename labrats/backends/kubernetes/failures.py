"""The failures of attempts without an outcome, derived from their Jobs and pods. Pure.

Each reason is one sentence that a person can act on.
"""

import re
from collections.abc import Iterable
from typing import Final

from labrats.backends.kubernetes.batch_objects import (
    CONTAINER,
    FAILED_CODE_ANNOTATION,
    FAILED_REASON_ANNOTATION,
    Container,
    ContainerTerminated,
    ContainerWaiting,
    JobObject,
    PodObject,
)
from labrats.files.attempt_inputs import missing_text
from labrats.model.errors import LabratsError
from labrats.model.job import FailedCode, KeyReference
from labrats.model.record import Record
from labrats.processes import describe_exit


class AttemptFailure(Record):
    """The `failedCode` and `failedReason` for the job of an attempt that failed."""

    code: FailedCode
    reason: str


ENDED_BY_ENGINE: Final = AttemptFailure(code=FailedCode.EXECUTOR_DIED, reason="the engine ended the attempt")
NEVER_STARTED: Final = AttemptFailure(code=FailedCode.LOST, reason="the attempt was ended before it started")

ENDING_WAS_DAMAGED: Final = AttemptFailure(
    code=FailedCode.LOST, reason="the attempt has ended, but the record of its end on the volume is damaged"
)

CLUSTER_CODES: Final = frozenset(
    {
        FailedCode.DISK_LIMIT,
        FailedCode.EVICTED,
        FailedCode.LOST,
        FailedCode.NODE_LOST,
        FailedCode.OUT_OF_MEMORY,
        FailedCode.TIMEOUT,
    }
)
"""Codes that take precedence over the executor's error event, since the executor only knows that it was stopped."""

_IMAGE_PULL_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_PERMANENT_REASONS: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
"""Reasons that waiting does not fix: only another image name does, or an image that is copied to the node."""

_SIGNAL_OFFSET: Final = 128
"""Added to a signal's number in the exit code of a container that the signal killed."""


def failure_without_outcome(job: JobObject | None, pod: PodObject | None, *, job_exists: bool = True) -> AttemptFailure:
    """Return the failure of an attempt that is over and has no terminal event.

    job, pod: their last observed states; None if they were never observed. job_exists: False if the Job was deleted.
    """
    if pod and pod.lost_with_its_node:
        return AttemptFailure(
            code=FailedCode.NODE_LOST, reason=f"the node {pod.spec.node_name} was lost while the attempt ran on it"
        )
    if job and (decided := _recorded_by_engine(job)):
        return decided
    if pod and (failure := _pod_failure(pod)):
        return failure
    if job and job_exists and job.status.failed and not job.has_ended and (pod is None or not pod.is_over):
        reason = "the pod of the attempt vanished without ending, as when its node is lost"
        return AttemptFailure(code=FailedCode.NODE_LOST, reason=reason)
    if pod and pod.metadata.deletion_timestamp:
        return _deletion_failure(job, pod, job_exists=job_exists)
    if pod and pod.state.terminated:
        return _exit_failure(pod.container.name, pod.state.terminated)
    if job and (condition := job.condition("Failed")) and condition.reason == "DeadlineExceeded":
        reason = "the cluster ended the attempt, which the engine should have done long before"
        return AttemptFailure(code=FailedCode.TIMEOUT, reason=reason)
    return _unseen_end(job, pod, job_exists=job_exists)


def lost_claim_holder(holder: str) -> AttemptFailure:
    """Return the failure of an attempt whose pod `holder` claimed it and vanished before it started."""
    reason = f"the pod {holder} claimed the attempt and vanished before it started; no other pod may take over"
    return AttemptFailure(code=FailedCode.LOST, reason=reason)


def several_pods_acted(pods: Iterable[str]) -> AttemptFailure:
    """Return the failure of an attempt that several pods ran."""
    names = " and ".join(sorted(pods))
    reason = (
        f"the cluster started several pods of the attempt, {names}, and all of them were ended: "
        "set LABRATS_DATA_CLAIM to a volume on which only one pod can claim an attempt"
    )
    return AttemptFailure(code=FailedCode.LOST, reason=reason)


def _deletion_failure(job: JobObject | None, pod: PodObject, *, job_exists: bool) -> AttemptFailure:
    when = "while the attempt ran in it" if pod.has_started else "before the attempt started in it"
    what = f"the pod {pod.name} was" if job_exists or job is None else f"the Job {job.name} and its pod {pod.name} were"
    return AttemptFailure(code=FailedCode.LOST, reason=f"{what} deleted {when}")


def _unseen_end(job: JobObject | None, pod: PodObject | None, *, job_exists: bool) -> AttemptFailure:
    if job and not job_exists:
        what = f"the Job {job.name} was deleted"
    elif pod:
        what = f"the pod {pod.name} vanished"
    else:
        what = "the cluster has no pod of the attempt"
    return AttemptFailure(code=FailedCode.LOST, reason=f"{what}, and no outcome was recorded")


def permanent_start_failure(pod: PodObject | None) -> AttemptFailure | None:
    """Return the failure of a pod that can never start; None while it may."""
    waiting = pod.state.waiting if pod else None
    return _image_pull_failure(pod, waiting) if pod and waiting and waiting.reason in _PERMANENT_REASONS else None


def start_failure_so_far(pod: PodObject | None) -> AttemptFailure | None:
    """Return why a pod has not started, as the cluster reports it. The pod may still start later."""
    waiting = pod.state.waiting if pod else None
    if pod and waiting and waiting.reason in _IMAGE_PULL_REASONS:
        return _image_pull_failure(pod, waiting)
    if pod and (refusal := pod.condition("PodScheduled", status="False")):
        reason = f"no node can take the pod: {_one_line(refusal.message)}"
        return AttemptFailure(code=FailedCode.UNSCHEDULABLE, reason=reason)
    return None


def start_timed_out(pod: PodObject | None, seconds: float) -> AttemptFailure:
    """Return the failure of an attempt that has not started within `seconds`."""
    if failure := start_failure_so_far(pod):
        return failure
    waiting = pod.state.waiting if pod else None
    if pod is None:
        reason = "the cluster has created no pod for it: see the Events of the Job for the quota or policy"
    elif waiting and waiting.message:
        reason = f"{waiting.reason}: {_one_line(waiting.message)}"
    else:
        reason = "see the Events of the pod for the volume, ConfigMap or Secret that it waits for"
    return AttemptFailure(
        code=FailedCode.START_TIMEOUT, reason=f"the attempt did not start within {seconds:g} s: {reason}"
    )


def job_was_refused(refusal: LabratsError) -> AttemptFailure:
    """Return the failure of an attempt whose Job the API server refused to create."""
    reason = f"the cluster refuses the attempt's Job: {_one_line(str(refusal))}"
    return AttemptFailure(code=FailedCode.START_TIMEOUT, reason=reason)


def text_was_missing(file: str, ref: KeyReference, *, has_config_map: bool) -> AttemptFailure:
    """Return the failure of an attempt whose pod waits for a ConfigMap that does not exist, or has no such key."""
    return AttemptFailure(code=FailedCode.INTERNAL, reason=missing_text(file, ref, has_config_map=has_config_map))


def failure_annotations(failure: AttemptFailure) -> dict[str, str]:
    """Return the annotations with which the engine records why it ended a Job, for the next engine, too."""
    return {FAILED_CODE_ANNOTATION: failure.code, FAILED_REASON_ANNOTATION: failure.reason}


def _recorded_by_engine(job: JobObject) -> AttemptFailure | None:
    annotations = job.metadata.annotations
    if (code := annotations.get(FAILED_CODE_ANNOTATION)) not in set(FailedCode):
        return None
    return AttemptFailure(code=FailedCode(code), reason=annotations.get(FAILED_REASON_ANNOTATION, ""))


_DISK_LIMIT: Final = re.compile(
    r"Usage of EmptyDir volume .* exceeds the limit|exceeded its local ephemeral storage limit"
    r"|ephemeral local storage usage exceeds the total limit"
)
"""The kubelet's messages about a pod that has written too much."""


def _pod_failure(pod: PodObject) -> AttemptFailure | None:
    if _DISK_LIMIT.search(pod.status.message or ""):
        reason = f"the attempt has written more than its pod may: {_one_line(pod.status.message)}"
        return AttemptFailure(code=FailedCode.DISK_LIMIT, reason=reason)
    if disruption := pod.condition("DisruptionTarget"):
        node = pod.spec.node_name or "its node"
        message = _one_line(pod.status.message or disruption.message)
        return AttemptFailure(code=FailedCode.EVICTED, reason=f"the pod was evicted from {node}: {message}")
    if pod.status.reason == "Evicted":
        return AttemptFailure(code=FailedCode.EVICTED, reason=f"the pod was evicted: {_one_line(pod.status.message)}")
    end = pod.state.terminated
    if end and end.reason == "OOMKilled":
        return _out_of_memory(pod.container)
    return None


def _out_of_memory(container: Container) -> AttemptFailure:
    limit = container.resources.limits.get("memory")
    bound = f"its limit of {limit}" if limit else "its node has"
    reason = f"the attempt needed more memory than {bound}: raise the limit, or give the agent less to do at once"
    return AttemptFailure(code=FailedCode.OUT_OF_MEMORY, reason=reason)


def _exit_failure(container: str, end: ContainerTerminated) -> AttemptFailure:
    what = "the executor" if container == CONTAINER else f"the step {container!r} before the executor"
    if end.exit_code > _SIGNAL_OFFSET:
        how = describe_exit("signal", end.exit_code - _SIGNAL_OFFSET)
    else:
        how = describe_exit("exit", end.exit_code)
    return AttemptFailure(code=FailedCode.EXECUTOR_DIED, reason=f"{what} {how} without an outcome")


def _image_pull_failure(pod: PodObject, waiting: ContainerWaiting) -> AttemptFailure:
    reason = f"the image {pod.container.image} cannot be pulled: {_one_line(waiting.message)}"
    return AttemptFailure(code=FailedCode.IMAGE_PULL, reason=reason)


def _one_line(message: str) -> str:
    """Return a message of Kubernetes on one line of at most 500 characters."""
    text = " ".join(message.split()).rstrip(".")
    return f"{text[:497]}..." if len(text) > 500 else text or "Kubernetes gives no reason"
