"""The end of pods and Jobs, on which the guarantee of at most one executor depends."""

from typing import Any

import pytest

from labrats.backends.kubernetes.batch_objects import JobObject, ObjectMeta, PodObject
from tests.unit.backends.kubernetes.objects import NAME, a_job_object, a_pod_object


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_in_a_final_phase_is_over(phase: str) -> None:
    assert a_pod_object(phase=phase).is_over


@pytest.mark.parametrize("phase", ["Pending", "Running", "Unknown"])
def test_a_deleted_pod_on_a_node_is_not_over_before_its_final_phase(phase: str) -> None:
    assert not a_pod_object(phase=phase, deleted=True).is_over


def test_a_deleted_pod_without_a_node_is_over() -> None:
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
def test_a_pod_has_started_once_its_container_has_run(state: dict[str, Any] | None, started: bool) -> None:
    assert a_pod_object(state).has_started is started


def test_a_pod_and_its_job_have_the_name_of_the_attempt() -> None:
    assert a_pod_object().attempt == NAME
    assert a_job_object().attempt == NAME


def test_foreign_objects_with_our_label_have_no_attempt() -> None:
    labelled = {"labrats.work/job": "ir-0000000a"}
    assert PodObject(metadata=ObjectMeta(name="probe", labels=labelled)).attempt is None
    assert JobObject(metadata=ObjectMeta(name="probe", labels=labelled)).attempt is None


@pytest.mark.parametrize("kind", ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"])
def test_a_job_whose_end_is_decided_creates_no_more_pods(kind: str) -> None:
    assert a_job_object({"type": kind}).creates_no_more_pods
    assert not a_job_object({"type": kind, "status": "False"}).creates_no_more_pods


def test_a_suspended_job_may_create_pods_later() -> None:
    assert not a_job_object({"type": "Suspended"}).creates_no_more_pods


def test_the_owner_of_a_job_is_the_inference_request_among_its_owners() -> None:
    owners = [{"kind": "CronJob", "name": "c", "uid": "1"}, {"kind": "InferenceRequest", "name": "ir", "uid": "2"}]

    assert a_job_object(ownerReferences=owners).owner_uid == "2"
    assert a_job_object(ownerReferences=owners[:1]).owner_uid == ""
