"""The identity of events of GitHub."""

from typing import Any

import pytest

from labrats.intake.deliveries import github_event
from labrats.intake.event_identity import identity_of, moment_of
from tests.support.deliveries import a_pull_request_event, an_issue_event

AT = "2026-01-01T12:00:00Z"


def an_issue(updated_at: str = AT, action: str = "labeled", **fields: Any) -> dict[str, Any]:
    payload = an_issue_event(action, **fields)
    payload["issue"] |= {"id": 1007, "updated_at": updated_at}
    return payload


def test_a_comment_is_the_same_event_after_it_was_edited() -> None:
    first, edited = (
        github_event("issue_comment", an_issue(at, "created", comment={"id": 3, "updated_at": at}))
        for at in (AT, "2026-01-02T12:00:00Z")
    )
    assert identity_of(first) == identity_of(edited) == "100 issue_comment.created 3 "


@pytest.mark.parametrize("event", [github_event("issues", an_issue_event()), github_event("push", {"ref": "x"})])
def test_an_event_without_ids_or_of_another_kind_has_no_identity(event: Any) -> None:
    assert identity_of(event) is None
    assert moment_of(event) is None


def test_two_labels_of_one_moment_are_two_events() -> None:
    one, other = (moment_of(github_event("issues", an_issue(label={"name": name}))) for name in ("ai", "bug"))
    assert one
    assert other
    assert one[0] != other[0]
    assert one[1] == other[1] == 1767268800


def test_a_label_without_a_valid_time_has_no_moment() -> None:
    assert moment_of(github_event("issues", an_issue("yesterday"))) is None


def test_a_push_to_a_pull_request_is_identified_by_its_head() -> None:
    payload = a_pull_request_event("synchronize")
    payload["pull_request"] |= {"id": 9}
    payload["pull_request"]["head"] |= {"sha": "abc"}
    assert identity_of(github_event("pull_request", payload)) == "100 pull_request.synchronize 9 abc"


def test_a_check_that_ran_again_is_another_event() -> None:
    payload = {"action": "completed", "repository": {"id": 100}, "check_run": {"id": 5, "completed_at": AT}}
    again = payload | {"check_run": {"id": 5, "completed_at": "2026-01-01T13:00:00Z"}}
    assert identity_of(github_event("check_run", payload)) != identity_of(github_event("check_run", again))
