"""Requests to cancel, retry or publish a job, in each phase."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.model.errors import IllegalMove
from labrats.model.job import (
    TOKEN_LIFETIME,
    FailedCode,
    Job,
    WorkspaceSetup,
    after_cancel_request,
    after_publish_request,
    after_retry_request,
    retried,
)
from labrats.model.phases import ENDED, Phase
from labrats.model.report import Published, Report, ReportMode, ReportTarget
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_spec

P = Phase
LATER = NOON + timedelta(seconds=5)
FAILURE: dict[str, Any] = {
    "failed_code": FailedCode.AGENT_ERROR,
    "failed_reason": "it broke",
    "chain_ended": "the job failed",
}


def a_failed_job(setup: WorkspaceSetup | None = None) -> Job:
    return a_job(P.FAILED, spec=a_spec(workspace_setup=setup), attempts=2, deadline_at=NOON, **FAILURE)


def test_a_cancel_request_ends_a_pending_job() -> None:
    status = after_cancel_request(a_job(), LATER).status
    assert (status.phase, status.finished_at, status.cancel_requested_at) == (P.CANCELLED, LATER, LATER)


def test_a_cancel_request_is_recorded_on_a_running_job() -> None:
    status = after_cancel_request(a_job(P.RUNNING), LATER).status
    assert (status.phase, status.finished_at, status.cancel_requested_at) == (P.RUNNING, None, LATER)


def test_a_repeated_cancel_request_changes_nothing() -> None:
    job = a_job(P.RUNNING, cancel_requested_at=NOON)
    assert after_cancel_request(job, LATER) is job


@pytest.mark.parametrize("phase", sorted(ENDED))
def test_a_cancel_request_is_refused_for_an_ended_job(phase: Phase) -> None:
    with pytest.raises(IllegalMove, match="cannot be cancelled"):
        after_cancel_request(a_job(phase), LATER)


def test_a_retried_job_is_pending_without_its_failure_and_counts_its_attempts_on() -> None:
    status = retried(a_failed_job()).status
    assert (status.phase, status.attempts) == (P.PENDING, 2)
    assert (status.failed_code, status.failed_reason, status.chain_ended) == (None, None, None)
    assert (status.finished_at, status.deadline_at, status.slot) == (None, None, None)


def test_a_retry_request_retries_a_failed_job() -> None:
    job = a_failed_job()
    assert after_retry_request(job, LATER) == retried(job)


@pytest.mark.parametrize("phase", sorted(set(Phase) - {P.FAILED}))
def test_a_retry_request_is_refused_for_a_job_that_has_not_failed(phase: Phase) -> None:
    with pytest.raises(IllegalMove, match="cannot be retried"):
        after_retry_request(a_job(phase), LATER)


def test_a_retry_request_is_refused_once_the_token_of_the_job_has_expired() -> None:
    setup = WorkspaceSetup(git_repo="https://github.com/a/b.git", credentials_ref="token")
    job, expiry = a_failed_job(setup), NOON + TOKEN_LIFETIME
    assert after_retry_request(job, expiry).phase is P.PENDING
    with pytest.raises(IllegalMove, match="more than 10 minutes old"):
        after_retry_request(job, expiry + timedelta(seconds=1))
    assert retried(job).phase is P.PENDING


@pytest.mark.parametrize("token_from", [None, "app"])
def test_a_retry_request_is_accepted_at_any_time_for_a_job_that_came_without_a_token(token_from: str | None) -> None:
    reference = "token" if token_from else None
    setup = WorkspaceSetup(git_repo="https://github.com/a/b.git", credentials_ref=reference, token_from=token_from)
    assert after_retry_request(a_failed_job(setup), NOON + timedelta(days=30)).phase is P.PENDING


REPORT = Report(target=ReportTarget(repository="octo/demo", issue=1))


def test_published_again_is_the_report_of_an_ended_job_until_it_is_written() -> None:
    job = a_job(P.SUCCEEDED, published=Published(attempts=1, comment_url="https://github.test/1", refused=("check",)))
    again = after_publish_request(replace(job, spec=replace(job.spec, report=REPORT)), LATER)
    assert not again.is_published
    assert again.status.published == Published(comment_url="https://github.test/1", requested_at=LATER)


@pytest.mark.parametrize(
    ("phase", "report"),
    [
        (P.RUNNING, REPORT),
        (P.PENDING, REPORT),
        (P.SUCCEEDED, None),
        (P.SUCCEEDED, Report(comment=None)),
        (P.SUCCEEDED, replace(REPORT, mode=ReportMode.PREVIEW)),
    ],
)
def test_publish_request_is_refused_for_a_job_without_a_report_to_write(phase: Phase, report: Report | None) -> None:
    job = a_job(phase)
    with pytest.raises(IllegalMove):
        after_publish_request(replace(job, spec=replace(job.spec, report=report)), LATER)
