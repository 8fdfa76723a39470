from datetime import timedelta

import pytest

from labrats.model.job import FailedCode, Job
from labrats.model.job_conditions import camel_case, conditions_of
from labrats.model.phases import Phase
from tests.fakes.clock import NOON
from tests.support.builders import a_job

LATER = NOON + timedelta(hours=1)
P = Phase


def summary_of(job: Job) -> list[tuple[str, str, str]]:
    """Return type, status and reason of each condition."""
    return [(each.type, each.status, each.reason) for each in conditions_of(job, LATER)]


ACCEPTED = ("Accepted", "True", "Accepted")
STARTED = ("Started", "True", "Admitted")


def finished(reason: str) -> list[tuple[str, str, str]]:
    return [("Finished", "True", reason), ("Succeeded", str(reason == "Succeeded"), reason)]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (a_job(), [ACCEPTED]),
        (a_job(P.RUNNING), [ACCEPTED, STARTED]),
        (a_job(P.SUCCEEDED), [ACCEPTED, STARTED, *finished("Succeeded")]),
        (a_job(P.CANCELLED), [ACCEPTED, STARTED, *finished("Cancelled")]),
        (a_job(P.CANCELLED, superseded_by="ir-2"), [ACCEPTED, STARTED, *finished("Superseded")]),
        (a_job(P.CANCELLED, started_at=None), [ACCEPTED, *finished("Cancelled")]),
        (
            a_job(P.FAILED, failed_code=FailedCode.OUT_OF_MEMORY),
            [ACCEPTED, STARTED, *finished("OutOfMemory")],
        ),
        (
            a_job(attempts=1, started_at=NOON, failed_code=FailedCode.LOST),
            [ACCEPTED, ("Started", "False", "Requeued")],
        ),
        (
            a_job(P.FAILED, attempts=0, started_at=None, failed_code=FailedCode.INVALID),
            [("Accepted", "False", "Invalid"), *finished("Invalid")],
        ),
        (a_job(attempts=1, started_at=NOON), [ACCEPTED, ("Started", "False", "Retried")]),
    ],
)
def test_conditions_report_only_past_transitions(job: Job, expected: list[tuple[str, str, str]]) -> None:
    assert summary_of(job) == expected


def test_each_condition_has_the_time_of_its_transition() -> None:
    accepted, started, ended, succeeded = conditions_of(
        a_job(P.SUCCEEDED, started_at=NOON + timedelta(minutes=1), finished_at=NOON + timedelta(minutes=2)), LATER
    )
    times = [each.last_transition_time for each in (accepted, started, ended, succeeded)]
    assert times == [NOON, NOON + timedelta(minutes=1), *[NOON + timedelta(minutes=2)] * 2]


def test_a_requeued_job_is_not_started() -> None:
    _, started = conditions_of(a_job(attempts=1, started_at=NOON, failed_code=FailedCode.LOST), LATER)
    assert started.last_transition_time == LATER


def test_the_message_of_a_failure_is_its_reason() -> None:
    reason = "the image none:1 cannot be pulled: there is no such host"
    job = a_job(P.FAILED, failed_code=FailedCode.IMAGE_PULL, failed_reason=reason)
    assert conditions_of(job, LATER)[-1].message == reason


@pytest.mark.parametrize("code", FailedCode)
def test_every_failed_code_is_a_valid_kubernetes_reason(code: FailedCode) -> None:
    assert camel_case(code).isalpha()
    assert camel_case(code)[0].isupper()
