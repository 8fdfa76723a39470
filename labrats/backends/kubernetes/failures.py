"""Why an attempt has no outcome of its own, from what Kubernetes says of its Job and pod. Pure.

Each reason is one sentence that a person can act on.
"""

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
    """Why an attempt failed: what becomes `failedCode` and `failedReason` of its job."""

    code: FailedCode
    reason: str


ENDED_BY_ENGINE: Final = AttemptFailure(code=FailedCode.EXECUTOR_DIED, reason="the engine ended the attempt")
NEVER_STARTED: Final = AttemptFailure(code=FailedCode.LOST, reason="the attempt was ended before it started")

BY_THE_CLUSTER: Final = frozenset(
    {FailedCode.EVICTED, FailedCode.LOST, FailedCode.NODE_LOST, FailedCode.OUT_OF_MEMORY, FailedCode.TIMEOUT}
)
"""What an attempt failed of, whatever the executor still said of it: it only knows that it was asked to end."""

_IMAGE_TROUBLE: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_HOPELESS: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
"""Waiting does not help: only another image name, or an image brought to the node by hand."""

_SIGNALLED: Final = 128
"""A container's exit code is this plus the number of the signal that its first process died of."""


def why_it_ended(job: JobObject | None, pod: PodObject | None, *, job_exists: bool = True) -> AttemptFailure:
    """Return why an attempt that is over left no terminal event, as far as that was seen.

    job, pod: as they were last seen, if they ever were. job_exists: whether the Job is there still.
    """
    if pod and pod.lost_with_its_node:
        return AttemptFailure(code=FailedCode.NODE_LOST, reason=f"{pod.spec.node_name} was lost with the attempt on it")
    if job and (decided := _decided_by_the_engine(job)):
        return decided
    if pod and (failure := _of_pod(pod)):
        return failure
    if pod and pod.metadata.deletion_timestamp:
        return _deleted(job, pod, job_exists=job_exists)
    if pod and pod.state.terminated:
        return _of_exit(pod.container.name, pod.state.terminated)
    if job and (condition := job.condition("Failed")) and condition.reason == "DeadlineExceeded":
        reason = "the cluster ended the attempt, long after the engine should have"
        return AttemptFailure(code=FailedCode.TIMEOUT, reason=reason)
    return _vanished(job, pod, job_exists=job_exists)


def why_nobody_took_over(holder: str) -> AttemptFailure:
    """The pod `holder` claimed the attempt, and is gone before it began."""
    reason = f"the pod {holder} had claimed the attempt, and is gone: no other pod may take it over"
    return AttemptFailure(code=FailedCode.LOST, reason=reason)


def why_it_was_doubled(pods: Iterable[str]) -> AttemptFailure:
    """Several pods of the attempt act."""
    names = " and ".join(sorted(pods))
    reason = (
        f"the cluster started several pods of the attempt, {names}, and there is no volume on which one could claim it"
    )
    return AttemptFailure(code=FailedCode.LOST, reason=f"{reason} (LABRATS_DATA_CLAIM): all were ended")


def _deleted(job: JobObject | None, pod: PodObject, *, job_exists: bool) -> AttemptFailure:
    when = "while the attempt ran in it" if pod.has_started else "before the attempt had started in it"
    what = f"the pod {pod.name} was" if job_exists or job is None else f"the Job {job.name} and its pod {pod.name} were"
    return AttemptFailure(code=FailedCode.LOST, reason=f"{what} deleted {when}")


def _vanished(job: JobObject | None, pod: PodObject | None, *, job_exists: bool) -> AttemptFailure:
    if job and not job_exists:
        what = f"the Job {job.name} was deleted"
    elif pod:
        what = f"the pod {pod.name} is gone"
    else:
        what = "the cluster has no pod of the attempt"
    return AttemptFailure(code=FailedCode.LOST, reason=f"{what}, and no outcome of it was seen")


def why_it_cannot_start(pod: PodObject | None) -> AttemptFailure | None:
    """Why the pod will never start, where that is certain already."""
    waiting = pod.state.waiting if pod else None
    return _image_pull(pod, waiting) if pod and waiting and waiting.reason in _HOPELESS else None


def what_keeps_it_from_starting(pod: PodObject | None) -> AttemptFailure | None:
    """Why the executor does not run, where the cluster says it. Waiting may yet help."""
    waiting = pod.state.waiting if pod else None
    if pod and waiting and waiting.reason in _IMAGE_TROUBLE:
        return _image_pull(pod, waiting)
    if pod and (refusal := pod.condition("PodScheduled", status="False")):
        reason = f"no node can take the pod: {_sentence(refusal.message)}"
        return AttemptFailure(code=FailedCode.UNSCHEDULABLE, reason=reason)
    return None


def why_it_has_not_started(pod: PodObject | None, seconds: float) -> AttemptFailure:
    """Why the executor does not run yet, `seconds` after its start."""
    if failure := what_keeps_it_from_starting(pod):
        return failure
    waiting = pod.state.waiting if pod else None
    if pod is None:
        reason = "the cluster has made no pod for it: the events of the Job name the quota or the policy"
    elif waiting and waiting.message:
        reason = f"{waiting.reason}: {_sentence(waiting.message)}"
    else:
        reason = "the events of the pod name the volume, ConfigMap or Secret that it waits for"
    return AttemptFailure(
        code=FailedCode.START_TIMEOUT, reason=f"the attempt did not start within {seconds:g} s: {reason}"
    )


def why_it_was_refused(refusal: LabratsError) -> AttemptFailure:
    """Why there never was a Job of the attempt."""
    reason = f"the cluster does not let the attempt start: {_sentence(str(refusal))}"
    return AttemptFailure(code=FailedCode.START_TIMEOUT, reason=reason)


def text_is_missing(file: str, ref: KeyReference, *, has_config_map: bool) -> AttemptFailure:
    """Return the failure of an attempt whose pod waits for a ConfigMap that does not exist, or has no such key."""
    return AttemptFailure(code=FailedCode.INTERNAL, reason=missing_text(file, ref, has_config_map=has_config_map))


def failure_annotations(failure: AttemptFailure) -> dict[str, str]:
    """What a Job carries that the engine ended: why, so that the next engine knows it too."""
    return {FAILED_CODE_ANNOTATION: failure.code, FAILED_REASON_ANNOTATION: failure.reason}


def _decided_by_the_engine(job: JobObject) -> AttemptFailure | None:
    annotations = job.metadata.annotations
    if (code := annotations.get(FAILED_CODE_ANNOTATION)) not in set(FailedCode):
        return None
    return AttemptFailure(code=FailedCode(code), reason=annotations.get(FAILED_REASON_ANNOTATION, ""))


def _of_pod(pod: PodObject) -> AttemptFailure | None:
    if disruption := pod.condition("DisruptionTarget"):
        node = pod.spec.node_name or "its node"
        message = _sentence(pod.status.message or disruption.message)
        return AttemptFailure(code=FailedCode.EVICTED, reason=f"the pod was evicted from {node}: {message}")
    if pod.status.reason == "Evicted":
        return AttemptFailure(code=FailedCode.EVICTED, reason=f"the pod was evicted: {_sentence(pod.status.message)}")
    end = pod.state.terminated
    if end and end.reason == "OOMKilled":
        return _out_of_memory(pod.container)
    return None


def _out_of_memory(container: Container) -> AttemptFailure:
    limit = container.resources.limits.get("memory")
    bound = f"its limit of {limit}" if limit else "there was"
    reason = f"the attempt needed more memory than {bound}: raise the limit, or ask for less at once"
    return AttemptFailure(code=FailedCode.OUT_OF_MEMORY, reason=reason)


def _of_exit(container: str, end: ContainerTerminated) -> AttemptFailure:
    what = "the executor" if container == CONTAINER else f"the step {container!r} before the executor"
    if end.exit_code > _SIGNALLED:
        how = describe_exit("signal", end.exit_code - _SIGNALLED)
    else:
        how = describe_exit("exit", end.exit_code)
    return AttemptFailure(code=FailedCode.EXECUTOR_DIED, reason=f"{what} {how} without an outcome")


def _image_pull(pod: PodObject, waiting: ContainerWaiting) -> AttemptFailure:
    reason = f"the image {pod.container.image} cannot be pulled: {_sentence(waiting.message)}"
    return AttemptFailure(code=FailedCode.IMAGE_PULL, reason=reason)


def _sentence(message: str) -> str:
    """What Kubernetes says, on one line and not too long."""
    text = " ".join(message.split()).rstrip(".")
    return f"{text[:497]}..." if len(text) > 500 else text or "Kubernetes gives no reason"
