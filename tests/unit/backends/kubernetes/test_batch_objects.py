"""When a pod is over, and when a Job makes no other: what the promise of at most one executor rests on."""

from typing import Any

import pytest

from labrats.backends.kubernetes.batch_objects import JobObject, ObjectMeta, PodObject
from tests.unit.backends.kubernetes.objects import NAME, a_job_object, a_pod_object


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_in_a_final_phase_is_over(phase: str) -> None:
    assert a_pod_object(phase=phase).is_over


@pytest.mark.parametrize("phase", ["Pending", "Running", "Unknown"])
def test_a_pod_on_a_node_is_not_over_because_it_was_deleted(phase: str) -> None:
    assert not a_pod_object(phase=phase, deleted=True).is_over


def test_a_pod_that_was_deleted_before_it_had_a_node_is_over() -> None:
    assert a_pod_object(node="", deleted=True).is_over
    assert not a_pod_object(node="").is_over


@pytest.mark.parametrize(
    ("state", "started"),
    [
        (None, False),
        ({"waiting": {"reason": "ContainerCreating"}}, False),
        ({"running": {"startedAt": "2026-01-01T12:00:00Z"}}, True),
        ({"terminated": {"exitCode": 0}}, True),
    ],
)
def test_a_pod_has_a_log_once_its_container_ran(state: dict[str, Any] | None, started: bool) -> None:
    assert a_pod_object(state).has_started is started


def test_a_pod_and_its_job_have_the_name_of_the_attempt() -> None:
    assert a_pod_object().attempt == NAME
    assert a_job_object().attempt == NAME


def test_objects_that_somebody_else_labelled_have_no_attempt() -> None:
    labelled = {"labrats.work/job": "ir-0000000a"}
    assert PodObject(metadata=ObjectMeta(name="probe", labels=labelled)).attempt is None
    assert JobObject(metadata=ObjectMeta(name="probe", labels=labelled)).attempt is None


@pytest.mark.parametrize("kind", ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"])
def test_a_job_whose_end_is_decided_makes_no_other_pod(kind: str) -> None:
    assert a_job_object({"type": kind}).starts_no_more_pods
    assert not a_job_object({"type": kind, "status": "False"}).starts_no_more_pods


def test_a_job_that_is_suspended_may_go_on() -> None:
    assert not a_job_object({"type": "Suspended"}).starts_no_more_pods


def test_a_job_belongs_to_the_request_that_owns_it() -> None:
    owners = [{"kind": "CronJob", "name": "c", "uid": "1"}, {"kind": "InferenceRequest", "name": "ir", "uid": "2"}]

    assert a_job_object(ownerReferences=owners).owner_uid == "2"
    assert a_job_object(ownerReferences=owners[:1]).owner_uid == ""
