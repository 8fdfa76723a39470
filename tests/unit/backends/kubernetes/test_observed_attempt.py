"""The observed state of an attempt, from watches that may lag and disagree."""

from typing import Any

import msgspec
import pytest

from labrats.backends.kubernetes.batch_objects import JobObject, PodObject
from labrats.backends.kubernetes.observed_attempt import ObservedAttempt
from tests.unit.backends.kubernetes.objects import NAME, a_job_object, a_pod_object

RUNNING: dict[str, Any] = {"running": {}}
DECIDED = a_job_object({"type": "Complete"}, resourceVersion="9")


def an_observed(job: JobObject | None = None, *pods: PodObject) -> ObservedAttempt:
    observed = ObservedAttempt(NAME)
    if job:
        observed.update_job(job)
    for pod in pods:
        observed.update_pod(pod)
    return observed


REFUSED = {"prepare": {"terminated": {"exitCode": 75}}}
PREPARED = {"prepare": {"terminated": {"exitCode": 0}}}


def a_pod(name: str, state: dict[str, Any] | None = None, version: int = 1, **fields: Any) -> PodObject:
    pod = a_pod_object(state, **fields)
    metadata = msgspec.structs.replace(pod.metadata, name=name, resource_version=str(version))
    return msgspec.structs.replace(pod, metadata=metadata)


@pytest.mark.parametrize(
    ("job", "pods", "is_over"),
    [
        (DECIDED, [], True),
        (DECIDED, [a_pod("a", phase="Succeeded")], True),
        (DECIDED, [a_pod("a", phase="Failed"), a_pod("b", phase="Running")], False),
        (a_job_object(), [a_pod("a", phase="Succeeded")], False),
        (a_job_object(failed=1), [], True),
        (a_job_object(failed=1), [a_pod("a", phase="Running")], False),
        (None, [], True),
        (None, [a_pod("a", phase="Running")], False),
    ],
)
def test_an_attempt_is_over_when_no_pod_runs_and_none_will_be_created(
    job: JobObject | None, pods: list[PodObject], is_over: bool
) -> None:
    assert an_observed(job, *pods).is_over is is_over


@pytest.mark.parametrize(
    ("last", "may_run"),
    [
        (a_pod("a", RUNNING, phase="Running"), True),
        (a_pod("a", RUNNING, phase="Running", deleted=True), True),
        (a_pod("a", phase="Failed"), False),
        (a_pod("a", node="", deleted=True), False),
        (a_pod("a", conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}]), False),
    ],
)
def test_a_pod_that_vanishes_before_its_node_has_reported_its_end_may_still_run(last: PodObject, may_run: bool) -> None:
    observed = an_observed(DECIDED, a_pod("a", RUNNING, phase="Running"))
    observed.remove_pod(last)

    assert observed.is_over is not may_run
    observed.note_end(last)
    assert observed.is_over


def test_a_job_that_was_deleted_makes_no_more_pods() -> None:
    observed = an_observed(a_job_object())
    observed.remove_job()

    assert observed.is_over
    assert observed.job == a_job_object()  # its last version is still known


def test_older_versions_of_objects_are_ignored() -> None:
    observed = an_observed(DECIDED, a_pod("a", phase="Failed", version=5))
    observed.update_job(a_job_object(resourceVersion="8"))
    observed.update_pod(a_pod("a", phase="Running", version=4))

    assert observed.is_over


def test_the_pod_that_started_is_the_last_pod_even_after_its_deletion() -> None:
    observed = an_observed(a_job_object(), a_pod("a"), a_pod("b", RUNNING), a_pod("c"))

    assert observed.last_pod
    assert observed.last_pod.name == "b"
    observed.remove_pod(a_pod("b"))
    assert observed.last_pod.name == "b"
    assert observed.has_ended("executor")


def test_the_pod_of_an_earlier_job_of_the_same_name_is_ignored() -> None:
    def owned(pod: PodObject, uid: str) -> PodObject:
        metadata = msgspec.structs.replace(pod.metadata, annotations={"labrats.work/job-uid": uid})
        return msgspec.structs.replace(pod, metadata=metadata)

    def a_job_of(uid: str, version: str) -> JobObject:
        owner = {"kind": "InferenceRequest", "name": "ir-0000000a", "uid": uid}
        return a_job_object(uid=f"job-of-{uid}", resourceVersion=version, ownerReferences=[owner])

    earlier, later = owned(a_pod("a", RUNNING), "first"), owned(a_pod("b"), "second")
    observed = an_observed(None, earlier, later)
    observed.update_job(a_job_of("first", "1"))
    assert (observed.last_pod, list(observed.pods)) == (earlier, ["a"])
    assert observed.is_of_other_owner(a_job_of("second", "2"))
    observed.update_job(a_job_of("second", "2"))
    assert (observed.last_pod, observed.is_over) == (None, False)
    observed.replace_pods([earlier, later])
    assert (observed.last_pod, list(observed.pods)) == (later, ["b"])


def test_replace_pods_removes_pods_that_no_longer_exist() -> None:
    observed = an_observed(DECIDED, a_pod("a", phase="Running"), a_pod("b", phase="Running"))
    observed.replace_pods([a_pod("b", phase="Failed", version=2)])
    assert (list(observed.pods), list(observed.vanished)) == (["b"], ["a"])
    observed.remove_pod(a_pod("a", phase="Failed", version=3))  # the list was ahead of the watch

    assert observed.is_over


def test_only_a_new_version_wakes_waiting_tasks() -> None:
    observed = an_observed(DECIDED)
    changed = observed.changed
    observed.update_job(DECIDED)
    assert not changed.is_set()
    observed.update_pod(a_pod("a"))

    assert changed.is_set()
    assert not observed.changed.is_set()


@pytest.mark.parametrize("first", ["refused", "claimed"])
def test_the_pod_that_claimed_the_attempt_is_the_last_pod_in_any_order_of_observation(first: str) -> None:
    pods = [a_pod("refused", steps=REFUSED, phase="Failed"), a_pod("claimed", RUNNING, steps=PREPARED)]

    observed = an_observed(a_job_object(), *sorted(pods, key=lambda pod: pod.name != first))

    assert observed.last_pod
    assert observed.last_pod.name == "claimed"
    assert [pod.name for pod in observed.refused_pods] == ["refused"]
    assert not observed.is_doubled


def test_a_refused_pod_neither_starts_the_attempt_nor_hides_a_waiting_pod() -> None:
    observed = an_observed(a_job_object(), a_pod("waiting"), a_pod("refused", steps=REFUSED, phase="Failed"))

    assert observed.last_pod
    assert observed.last_pod.name == "waiting"
    assert not observed.has_started


def test_an_attempt_is_doubled_while_one_of_two_acting_pods_runs() -> None:
    observed = an_observed(a_job_object(), a_pod("a", RUNNING), a_pod("b", RUNNING))
    found = [observed.is_doubled]
    for name in ("a", "b"):
        observed.update_pod(a_pod(name, {"terminated": {"exitCode": 1}}, version=2, phase="Failed"))
        found.append(observed.is_doubled)

    assert found == [True, True, False]


def test_an_attempt_is_abandoned_when_its_pod_is_deleted_and_others_exist() -> None:
    observed = an_observed(a_job_object(), a_pod("claimed", RUNNING, steps=PREPARED), a_pod("refused", steps=REFUSED))
    found = [observed.is_abandoned]
    observed.remove_pod(a_pod("claimed"))
    found.append(observed.is_abandoned)
    observed.update_job(DECIDED)
    found.append(observed.is_abandoned)

    assert found == [False, True, False]


def test_a_pod_starts_with_the_first_step_that_prints_events() -> None:
    cloning = a_pod("a", steps=PREPARED | {"clone": RUNNING})
    assert cloning.has_started
    assert cloning.reporting == ["clone", "executor"]
    assert not a_pod("a", steps=PREPARED | {"clone": {}}).has_started
    assert a_pod("a", steps={"prepare": {"terminated": {"exitCode": 1}}}).reporting == ["prepare", "executor"]


def test_foreign_containers_of_a_pod_are_ignored() -> None:
    """The sidecar of a service mesh starts before the steps, and never ends."""
    waiting = a_pod("a", steps={"mesh": RUNNING, "prepare": {}})
    assert not waiting.has_started
    assert waiting.reporting == ["executor"]

    running = a_pod("a", RUNNING, steps={"mesh": RUNNING} | PREPARED)
    assert running.container.name == "executor"
    assert running.has_acted
