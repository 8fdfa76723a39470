"""The failures of attempts that end without an outcome."""

from typing import Any

import pytest

from labrats.backends.kubernetes.batch_objects import PodObject
from labrats.backends.kubernetes.failures import failure_without_outcome, permanent_start_failure, start_timed_out
from labrats.model.job import FailedCode
from tests.unit.backends.kubernetes.objects import a_job_object, a_pod_object


def ended(exit_code: int, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": exit_code, "reason": reason}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def disrupted(reason: str, message: str = "") -> list[dict[str, str]]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (137, "was killed by signal 9 (SIGKILL)"),
        (139, "was killed by signal 11 (SIGSEGV)"),
    ],
)
def test_a_dead_executor_is_reported_with_its_exit_status(exit_code: int, words: str) -> None:
    failure = failure_without_outcome(a_job_object(), a_pod_object(ended(exit_code)))

    assert (failure.code, failure.reason) == (FailedCode.EXECUTOR_DIED, f"the executor {words} without an outcome")


@pytest.mark.parametrize("pod", [None, a_pod_object(node=""), a_pod_object({"running": {}}, deleted=True)])
def test_a_pod_that_vanished_without_a_condition_of_its_job_was_lost_with_its_node(pod: PodObject | None) -> None:
    assert failure_without_outcome(a_job_object(failed=1), pod).code is FailedCode.NODE_LOST
    decided = a_job_object({"type": "Failed"}, failed=1)
    assert failure_without_outcome(decided, pod).code is FailedCode.LOST


def test_a_container_out_of_memory_is_reported_with_its_limit() -> None:
    failure = failure_without_outcome(a_job_object(), a_pod_object(ended(137, "OOMKilled")))

    assert failure.code is FailedCode.OUT_OF_MEMORY
    assert "its limit of 2Gi" in failure.reason


def test_an_eviction_by_the_node_is_reported_with_its_reason() -> None:
    message = "The node was low on resource: ephemeral-storage. "
    pod = a_pod_object(ended(137), phase="Failed", reason="Evicted", message=message)

    failure = failure_without_outcome(a_job_object(), pod)

    assert failure.code is FailedCode.EVICTED
    assert failure.reason.endswith("low on resource: ephemeral-storage")


@pytest.mark.parametrize(
    "message",
    [
        'Usage of EmptyDir volume "scratch" exceeds the limit "10Gi". ',
        'Container executor exceeded its local ephemeral storage limit "12Gi". ',
        "Pod ephemeral local storage usage exceeds the total limit of containers 12Gi. ",
    ],
)
def test_attempt_that_fills_its_pod_is_reported_with_the_limit(message: str) -> None:
    pod = a_pod_object(ended(137), phase="Failed", reason="Evicted", message=message)

    failure = failure_without_outcome(a_job_object(), pod)

    assert failure.code is FailedCode.DISK_LIMIT
    assert failure.reason == f"the attempt has written more than its pod may: {message.strip().removesuffix('.')}"


@pytest.mark.parametrize(
    "reason", ["EvictionByEvictionAPI", "PreemptionByScheduler", "TerminationByKubelet", "DeletionByTaintManager"]
)
def test_a_disrupted_pod_is_reported_as_evicted(reason: str) -> None:
    failure = failure_without_outcome(
        a_job_object(), a_pod_object(ended(143), conditions=disrupted(reason, "making room"))
    )

    assert failure.code is FailedCode.EVICTED
    assert "node-1: making room" in failure.reason


@pytest.mark.parametrize("reason", ["DeletionByPodGC", "DeletionByTaintManager"])
def test_a_lost_node_is_named(reason: str) -> None:
    failure = failure_without_outcome(a_job_object(), a_pod_object({"running": {}}, conditions=disrupted(reason)))

    assert failure.code is FailedCode.NODE_LOST
    assert "node-1 was lost" in failure.reason


def test_a_pod_without_a_node_has_lost_no_node() -> None:
    pod = a_pod_object(node="", phase="Failed", conditions=disrupted("DeletionByPodGC"))

    assert failure_without_outcome(a_job_object(), pod).code is not FailedCode.NODE_LOST


def test_a_lost_node_takes_precedence_over_the_engines_record() -> None:
    record = {"labrats.work/failed-code": "executor_died", "labrats.work/failed-reason": "the engine ended the attempt"}
    pod = a_pod_object({"running": {}}, conditions=disrupted("DeletionByPodGC"))

    assert failure_without_outcome(a_job_object(annotations=record), pod).code is FailedCode.NODE_LOST


def test_a_job_that_exceeded_its_deadline_timed_out() -> None:
    job = a_job_object({"type": "Failed", "reason": "DeadlineExceeded"})

    assert failure_without_outcome(job, None).code is FailedCode.TIMEOUT


def test_the_engines_record_takes_precedence_over_the_exit_status() -> None:
    record = {"labrats.work/failed-code": "image_pull", "labrats.work/failed-reason": "no such image"}

    failure = failure_without_outcome(a_job_object(annotations=record), a_pod_object(ended(137)))

    assert (failure.code, failure.reason) == (FailedCode.IMAGE_PULL, "no such image")


def test_an_unknown_code_in_the_record_is_ignored() -> None:
    job = a_job_object(annotations={"labrats.work/failed-code": "bogus"})

    assert failure_without_outcome(job, a_pod_object(ended(3))).code is FailedCode.EXECUTOR_DIED


@pytest.mark.parametrize(
    ("state", "job_exists", "words"),
    [
        (ended(1), True, "the pod ir-0000000a-1-x7k2p was deleted while the attempt ran in it"),
        (None, True, "the pod ir-0000000a-1-x7k2p was deleted before the attempt started in it"),
        (
            {"running": {}},
            False,
            "the Job ir-0000000a-1 and its pod ir-0000000a-1-x7k2p were deleted while the attempt ran in it",
        ),
    ],
)
def test_a_deleted_pod_is_lost_and_the_deleted_objects_are_named(
    state: dict[str, Any] | None, job_exists: bool, words: str
) -> None:
    failure = failure_without_outcome(a_job_object(), a_pod_object(state, deleted=True), job_exists=job_exists)

    assert (failure.code, failure.reason) == (FailedCode.LOST, words)


def test_a_deleted_pod_that_ran_out_of_memory_is_reported_as_such() -> None:
    assert failure_without_outcome(a_job_object(), a_pod_object(ended(137, "OOMKilled"), deleted=True)).code is (
        FailedCode.OUT_OF_MEMORY
    )


def test_an_attempt_without_any_observed_end_is_lost() -> None:
    for job, pod, job_exists, words in (
        (None, None, True, "the cluster has no pod of the attempt"),
        (a_job_object(), None, False, "the Job ir-0000000a-1 was deleted"),
        (a_job_object(), a_pod_object({"running": {}}), True, "the pod ir-0000000a-1-x7k2p vanished"),
    ):
        failure = failure_without_outcome(job, pod, job_exists=job_exists)
        assert (failure.code, failure.reason) == (FailedCode.LOST, f"{words}, and no outcome was recorded")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_pulled_is_named(reason: str) -> None:
    failure = start_timed_out(a_pod_object(waiting(reason, "not found")), 300)

    assert failure.code is FailedCode.IMAGE_PULL
    assert failure.reason == "the image labrats/executor:1 cannot be pulled: not found"


def test_an_unschedulable_pod_is_reported_with_the_schedulers_message() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}

    failure = start_timed_out(a_pod_object(node="", conditions=[condition]), 300)

    assert failure.code is FailedCode.UNSCHEDULABLE
    assert failure.reason == "no node can take the pod: 0/1 nodes are available: 1 Insufficient cpu"


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (None, "no pod"),
        (a_pod_object(waiting("CreateContainerConfigError", "secret not found")), "secret not found"),
        (a_pod_object(waiting("ContainerCreating")), "Events of the pod"),
    ],
)
def test_a_start_timeout_names_the_cause_or_where_to_find_it(pod: Any, words: str) -> None:
    failure = start_timed_out(pod, 300)

    assert failure.code is FailedCode.START_TIMEOUT
    assert failure.reason.startswith("the attempt did not start within 300 s: ")
    assert words in failure.reason


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull"])
def test_a_permanent_start_failure_is_reported_at_once(reason: str) -> None:
    failure = permanent_start_failure(a_pod_object(waiting(reason)))

    assert failure is not None
    assert failure.code is FailedCode.IMAGE_PULL


@pytest.mark.parametrize("pod", [None, a_pod_object(waiting("ImagePullBackOff")), a_pod_object({"running": {}})])
def test_a_pod_that_may_still_start_has_no_permanent_failure(pod: Any) -> None:
    assert permanent_start_failure(pod) is None


def test_a_reason_is_one_line_of_bounded_length() -> None:
    pod = a_pod_object(phase="Failed", reason="Evicted", message="first\n  second " + "x" * 10_000)

    reason = failure_without_outcome(a_job_object(), pod).reason

    assert "first second" in reason
    assert len(reason) < 600


def test_a_failed_step_before_the_executor_is_named() -> None:
    pod = a_pod_object(steps={"prepare": ended(0), "clone": ended(137)})

    assert failure_without_outcome(a_job_object(), pod).reason == (
        "the step 'clone' before the executor was killed by signal 9 (SIGKILL) without an outcome"
    )


def test_the_image_of_a_step_that_cannot_be_pulled_is_named() -> None:
    failure = start_timed_out(a_pod_object(steps={"prepare": waiting("ErrImagePull", "not found")}), 300)

    assert failure.code is FailedCode.IMAGE_PULL
