"""What people are told when an attempt ends without a word of its own."""

from typing import Any

import pytest

from labrats.backends.kubernetes.failures import why_it_cannot_start, why_it_ended, why_it_has_not_started
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
def test_an_executor_that_died_is_told_by_how_it_died(exit_code: int, words: str) -> None:
    failure = why_it_ended(a_job_object(), a_pod_object(ended(exit_code)))

    assert (failure.code, failure.reason) == (FailedCode.EXECUTOR_DIED, f"the executor {words} without an outcome")


def test_one_that_ran_out_of_memory_is_told_by_its_limit() -> None:
    failure = why_it_ended(a_job_object(), a_pod_object(ended(137, "OOMKilled")))

    assert failure.code is FailedCode.OUT_OF_MEMORY
    assert "its limit of 2Gi" in failure.reason


def test_one_that_its_node_evicted_is_told_why() -> None:
    message = "The node was low on resource: ephemeral-storage. "
    pod = a_pod_object(ended(137), phase="Failed", reason="Evicted", message=message)

    failure = why_it_ended(a_job_object(), pod)

    assert failure.code is FailedCode.EVICTED
    assert failure.reason.endswith("low on resource: ephemeral-storage")


@pytest.mark.parametrize(
    "reason", ["EvictionByEvictionAPI", "PreemptionByScheduler", "TerminationByKubelet", "DeletionByTaintManager"]
)
def test_one_that_had_to_make_room_was_evicted(reason: str) -> None:
    failure = why_it_ended(a_job_object(), a_pod_object(ended(143), conditions=disrupted(reason, "making room")))

    assert failure.code is FailedCode.EVICTED
    assert "node-1: making room" in failure.reason


@pytest.mark.parametrize("reason", ["DeletionByPodGC", "DeletionByTaintManager"])
def test_one_whose_node_was_given_up_is_told_by_the_node(reason: str) -> None:
    failure = why_it_ended(a_job_object(), a_pod_object({"running": {}}, conditions=disrupted(reason)))

    assert failure.code is FailedCode.NODE_LOST
    assert "node-1 was lost" in failure.reason


def test_a_pod_that_never_had_a_node_lost_none() -> None:
    pod = a_pod_object(node="", phase="Failed", conditions=disrupted("DeletionByPodGC"))

    assert why_it_ended(a_job_object(), pod).code is not FailedCode.NODE_LOST


def test_that_counts_more_than_what_the_engine_meant_to_do_with_it() -> None:
    said = {"labrats.work/failed-code": "executor_died", "labrats.work/failed-reason": "the engine ended the attempt"}
    pod = a_pod_object({"running": {}}, conditions=disrupted("DeletionByPodGC"))

    assert why_it_ended(a_job_object(annotations=said), pod).code is FailedCode.NODE_LOST


def test_one_that_the_cluster_ended_at_its_last_deadline_ran_out_of_time() -> None:
    job = a_job_object({"type": "Failed", "reason": "DeadlineExceeded"})

    assert why_it_ended(job, None).code is FailedCode.TIMEOUT


def test_what_the_engine_itself_decided_counts_most() -> None:
    said = {"labrats.work/failed-code": "image_pull", "labrats.work/failed-reason": "no such image"}

    failure = why_it_ended(a_job_object(annotations=said), a_pod_object(ended(137)))

    assert (failure.code, failure.reason) == (FailedCode.IMAGE_PULL, "no such image")


def test_a_code_that_is_none_of_ours_is_not_believed() -> None:
    job = a_job_object(annotations={"labrats.work/failed-code": "bogus"})

    assert why_it_ended(job, a_pod_object(ended(3))).code is FailedCode.EXECUTOR_DIED


@pytest.mark.parametrize(
    ("state", "job_exists", "words"),
    [
        (ended(1), True, "the pod ir-0000000a-1-x7k2p was deleted while the attempt ran in it"),
        (None, True, "the pod ir-0000000a-1-x7k2p was deleted before the attempt had started in it"),
        (
            {"running": {}},
            False,
            "the Job ir-0000000a-1 and its pod ir-0000000a-1-x7k2p were deleted while the attempt ran in it",
        ),
    ],
)
def test_one_that_was_deleted_is_lost_and_says_what_was_deleted_not_by_whom(
    state: dict[str, Any] | None, job_exists: bool, words: str
) -> None:
    failure = why_it_ended(a_job_object(), a_pod_object(state, deleted=True), job_exists=job_exists)

    assert (failure.code, failure.reason) == (FailedCode.LOST, words)


def test_one_that_ran_out_of_memory_while_it_was_deleted_did_so() -> None:
    assert why_it_ended(a_job_object(), a_pod_object(ended(137, "OOMKilled"), deleted=True)).code is (
        FailedCode.OUT_OF_MEMORY
    )


def test_one_that_left_nothing_to_look_at_is_lost() -> None:
    for job, pod, job_exists, words in (
        (None, None, True, "the cluster has no pod of the attempt"),
        (a_job_object(), None, False, "the Job ir-0000000a-1 was deleted"),
        (a_job_object(), a_pod_object({"running": {}}), True, "the pod ir-0000000a-1-x7k2p is gone"),
    ):
        failure = why_it_ended(job, pod, job_exists=job_exists)
        assert (failure.code, failure.reason) == (FailedCode.LOST, f"{words}, and no outcome of it was seen")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_pulled_is_named(reason: str) -> None:
    failure = why_it_has_not_started(a_pod_object(waiting(reason, "not found")), 300)

    assert failure.code is FailedCode.IMAGE_PULL
    assert failure.reason == "the image labrats/executor:1 cannot be pulled: not found"


def test_a_pod_that_no_node_takes_says_what_the_scheduler_says() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}

    failure = why_it_has_not_started(a_pod_object(node="", conditions=[condition]), 300)

    assert failure.code is FailedCode.UNSCHEDULABLE
    assert failure.reason == "no node can take the pod: 0/1 nodes are available: 1 Insufficient cpu"


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (None, "no pod"),
        (a_pod_object(waiting("CreateContainerConfigError", "secret not found")), "secret not found"),
        (a_pod_object(waiting("ContainerCreating")), "events of the pod"),
    ],
)
def test_any_other_start_that_takes_too_long_says_where_to_look(pod: Any, words: str) -> None:
    failure = why_it_has_not_started(pod, 300)

    assert failure.code is FailedCode.START_TIMEOUT
    assert failure.reason.startswith("the attempt did not start within 300 s: ")
    assert words in failure.reason


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull"])
def test_what_waiting_cannot_mend_is_known_at_once(reason: str) -> None:
    failure = why_it_cannot_start(a_pod_object(waiting(reason)))

    assert failure is not None
    assert failure.code is FailedCode.IMAGE_PULL


@pytest.mark.parametrize("pod", [None, a_pod_object(waiting("ImagePullBackOff")), a_pod_object({"running": {}})])
def test_what_may_still_start_is_waited_for(pod: Any) -> None:
    assert why_it_cannot_start(pod) is None


def test_a_reason_is_one_line_and_not_too_long() -> None:
    pod = a_pod_object(phase="Failed", reason="Evicted", message="first\n  second " + "x" * 10_000)

    reason = why_it_ended(a_job_object(), pod).reason

    assert "first second" in reason
    assert len(reason) < 600


def test_a_step_before_the_executor_that_died_is_named() -> None:
    pod = a_pod_object(steps={"prepare": ended(0), "clone": ended(137)})

    assert why_it_ended(a_job_object(), pod).reason == (
        "the step 'clone' before the executor was killed by signal 9 (SIGKILL) without an outcome"
    )


def test_an_image_of_a_step_that_cannot_be_pulled_is_named() -> None:
    failure = why_it_has_not_started(a_pod_object(steps={"prepare": waiting("ErrImagePull", "not found")}), 300)

    assert failure.code is FailedCode.IMAGE_PULL
