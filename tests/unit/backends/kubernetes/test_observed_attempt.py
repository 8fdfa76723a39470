"""What is known of an attempt, from watches that may lag and disagree."""

from typing import Any

import msgspec
import pytest

from labrats.backends.kubernetes.batch_objects import JobObject, PodObject
from labrats.backends.kubernetes.observed_attempt import ObservedAttempt
from tests.unit.backends.kubernetes.objects import NAME, a_job_object, a_pod_object

RUNNING: dict[str, Any] = {"running": {}}
DECIDED = a_job_object({"type": "Complete"}, resourceVersion="9")


def a_sight(job: JobObject | None = None, *pods: PodObject) -> ObservedAttempt:
    sight = ObservedAttempt(NAME)
    if job:
        sight.job_seen(job)
    for pod in pods:
        sight.pod_seen(pod)
    return sight


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
        (None, [], True),
        (None, [a_pod("a", phase="Running")], False),
    ],
)
def test_it_is_over_when_no_pod_lives_and_none_will_be_made(
    job: JobObject | None, pods: list[PodObject], is_over: bool
) -> None:
    assert a_sight(job, *pods).is_over is is_over


def test_a_job_that_was_deleted_makes_no_more_pods() -> None:
    sight = a_sight(a_job_object())
    sight.job_removed()

    assert sight.is_over
    assert sight.job == a_job_object()  # it is remembered for what it said


def test_what_is_older_than_what_is_known_changes_nothing() -> None:
    sight = a_sight(DECIDED, a_pod("a", phase="Failed", version=5))
    sight.job_seen(a_job_object(resourceVersion="8"))
    sight.pod_seen(a_pod("a", phase="Running", version=4))

    assert sight.is_over


def test_of_several_pods_the_one_that_started_counts() -> None:
    sight = a_sight(a_job_object(), a_pod("a"), a_pod("b", RUNNING), a_pod("c"))

    assert sight.last_pod
    assert sight.last_pod.name == "b"
    sight.pod_removed(a_pod("b"))
    assert sight.last_pod.name == "b"
    assert sight.has_ended("executor")


def test_the_pod_of_an_earlier_job_of_the_name_is_passed_over() -> None:
    def owned(pod: PodObject, uid: str) -> PodObject:
        metadata = msgspec.structs.replace(pod.metadata, annotations={"labrats.work/job-uid": uid})
        return msgspec.structs.replace(pod, metadata=metadata)

    def a_job_of(uid: str, version: str) -> JobObject:
        owner = {"kind": "InferenceRequest", "name": "ir-0000000a", "uid": uid}
        return a_job_object(uid=f"job-of-{uid}", resourceVersion=version, ownerReferences=[owner])

    earlier, later = owned(a_pod("a", RUNNING), "first"), owned(a_pod("b"), "second")
    sight = a_sight(None, earlier, later)
    sight.job_seen(a_job_of("first", "1"))
    assert (sight.last_pod, list(sight.pods)) == (earlier, ["a"])
    assert sight.is_of_another(a_job_of("second", "2"))
    sight.job_seen(a_job_of("second", "2"))
    assert (sight.last_pod, sight.is_over) == (None, False)
    sight.pods_found([earlier, later])
    assert (sight.last_pod, list(sight.pods)) == (later, ["b"])


def test_what_was_found_is_all_there_is() -> None:
    sight = a_sight(DECIDED, a_pod("a", phase="Running"), a_pod("b", phase="Running"))
    sight.pods_found([a_pod("b", phase="Failed", version=2)])

    assert sight.is_over
    assert list(sight.pods) == ["b"]


def test_whoever_waits_is_woken_by_what_is_new_alone() -> None:
    sight = a_sight(DECIDED)
    changed = sight.changed
    sight.job_seen(DECIDED)
    assert not changed.is_set()
    sight.pod_seen(a_pod("a"))

    assert changed.is_set()
    assert not sight.changed.is_set()


@pytest.mark.parametrize("first", ["refused", "claimed"])
def test_the_pod_that_claimed_the_attempt_counts_whichever_was_seen_first(first: str) -> None:
    pods = [a_pod("refused", steps=REFUSED, phase="Failed"), a_pod("claimed", RUNNING, steps=PREPARED)]

    sight = a_sight(a_job_object(), *sorted(pods, key=lambda pod: pod.name != first))

    assert sight.last_pod
    assert sight.last_pod.name == "claimed"
    assert [pod.name for pod in sight.refused_pods] == ["refused"]
    assert not sight.is_doubled


def test_a_refused_pod_neither_starts_the_attempt_nor_hides_one_that_may() -> None:
    sight = a_sight(a_job_object(), a_pod("waiting"), a_pod("refused", steps=REFUSED, phase="Failed"))

    assert sight.last_pod
    assert sight.last_pod.name == "waiting"
    assert not sight.has_started


def test_an_attempt_is_doubled_while_one_of_two_pods_that_act_runs() -> None:
    sight = a_sight(a_job_object(), a_pod("a", RUNNING), a_pod("b", RUNNING))
    found = [sight.is_doubled]
    for name in ("a", "b"):
        sight.pod_seen(a_pod(name, {"terminated": {"exitCode": 1}}, version=2, phase="Failed"))
        found.append(sight.is_doubled)

    assert found == [True, True, False]


def test_an_attempt_is_abandoned_when_its_pod_is_gone_and_the_cluster_makes_others() -> None:
    sight = a_sight(a_job_object(), a_pod("claimed", RUNNING, steps=PREPARED), a_pod("refused", steps=REFUSED))
    found = [sight.is_abandoned]
    sight.pod_removed(a_pod("claimed"))
    found.append(sight.is_abandoned)
    sight.job_seen(DECIDED)
    found.append(sight.is_abandoned)

    assert found == [False, True, False]


def test_a_pod_starts_with_the_first_step_that_prints_events() -> None:
    cloning = a_pod("a", steps=PREPARED | {"clone": RUNNING})
    assert cloning.has_started
    assert cloning.reporting == ["clone", "executor"]
    assert not a_pod("a", steps=PREPARED | {"clone": {}}).has_started
    assert a_pod("a", steps={"prepare": {"terminated": {"exitCode": 1}}}).reporting == ["prepare", "executor"]


def test_containers_of_others_in_a_pod_say_nothing_of_the_attempt() -> None:
    """A sidecar that an operator's mesh injects starts before the steps, and never ends."""
    waiting = a_pod("a", steps={"mesh": RUNNING, "prepare": {}})
    assert not waiting.has_started
    assert waiting.reporting == ["executor"]

    running = a_pod("a", RUNNING, steps={"mesh": RUNNING} | PREPARED)
    assert running.container.name == "executor"
    assert running.acts
