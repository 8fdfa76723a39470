"""What a delivery brings: which event it is, and when two are the same."""

from typing import Any

import pytest
from msgspec.structs import replace

from labrats.intake.deliveries import fingerprint, generic_event, github_event, is_body_of
from labrats.model.record import Metadata
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from tests.support.deliveries import a_pull_request_event, an_issue_event

SOURCE = WebhookSource(metadata=Metadata(name="alerts", uid="uid-1"), spec=WebhookSourceSpec(type="generic"))


@pytest.mark.parametrize(
    ("name", "payload", "full_name"),
    [
        ("issues", {"action": "labeled"}, "issues.labeled"),
        ("push", {}, "push"),
        ("push", {"action": 7}, "push"),
        ("push", {"action": ""}, "push"),
    ],
)
def test_an_event_is_named_with_its_action(name: str, payload: dict[str, Any], full_name: str) -> None:
    assert github_event(name, payload).name == full_name


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("issues", an_issue_event(comment={})),
        ("issue_comment", an_issue_event()),
        ("pull_request", a_pull_request_event(review={})),
        ("made_up", an_issue_event()),
        ("ping", an_issue_event()),
        ("issues", {}),
        ("push", {}),
        ("push", {"ref": "a-branch", "ref_type": "branch"}),
        ("push", {"ref": "refs/heads/main", "alert": {}, "commit_oid": "d6e4c75c"}),
        ("push", {"ref": "refs/heads/main", "cache_location": "us"}),
    ],
)
def test_a_body_does_not_fit_another_event(name: str, payload: dict[str, Any]) -> None:
    assert not is_body_of(name, payload)


@pytest.mark.parametrize("payload", [{"ref": "refs/heads/main", "commits": []}, {"ref": "refs/tags/v1"}])
def test_a_push_is_one_with_or_without_its_commits(payload: dict[str, Any]) -> None:
    assert is_body_of("push", payload)


def test_an_event_that_github_has_yet_to_think_of_fits_where_it_looks_like_no_other() -> None:
    assert is_body_of("made_up", {"action": "created", "made_up": {}})


@pytest.mark.parametrize(
    ("payload", "name"),
    [({"type": "disk.full"}, "disk.full"), ({"event": "up"}, "up"), ({}, "received"), ({"type": 7}, "received")],
)
def test_a_generic_event_is_named_by_its_body(payload: dict[str, Any], name: str) -> None:
    event = generic_event(SOURCE, payload)
    assert (event.source, event.name) == ("alerts", name)


def test_the_same_body_is_the_same_delivery_of_one_source() -> None:
    another = replace(SOURCE, metadata=Metadata(name="alerts", uid="uid-2"))
    assert fingerprint(SOURCE, b"a") == fingerprint(SOURCE, b"a")
    assert len({fingerprint(SOURCE, b"a"), fingerprint(SOURCE, b"b"), fingerprint(another, b"a")}) == 3


def test_an_id_that_was_signed_tells_two_deliveries_of_one_body_apart() -> None:
    assert fingerprint(SOURCE, b"a", "msg_1") == fingerprint(SOURCE, b"b", "msg_1")
    assert fingerprint(SOURCE, b"a", "msg_1") != fingerprint(SOURCE, b"a", "msg_2")
