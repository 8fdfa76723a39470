"""Deliveries: the event of each, and when two of them are the same."""

from typing import Any

import pytest
from msgspec.structs import replace

from labrats.intake.deliveries import fingerprint_of, generic_event, github_event, is_body_of
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
def test_a_github_event_is_named_after_its_action(name: str, payload: dict[str, Any], full_name: str) -> None:
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
def test_a_body_does_not_match_another_event(name: str, payload: dict[str, Any]) -> None:
    assert not is_body_of(name, payload)


@pytest.mark.parametrize("payload", [{"ref": "refs/heads/main", "commits": []}, {"ref": "refs/tags/v1"}])
def test_a_push_matches_with_or_without_commits(payload: dict[str, Any]) -> None:
    assert is_body_of("push", payload)


def test_an_unknown_event_matches_if_its_body_looks_like_no_known_one() -> None:
    assert is_body_of("made_up", {"action": "created", "made_up": {}})


@pytest.mark.parametrize(
    ("payload", "name"),
    [({"type": "disk.full"}, "disk.full"), ({"event": "up"}, "up"), ({}, "received"), ({"type": 7}, "received")],
)
def test_a_generic_event_is_named_after_its_body(payload: dict[str, Any], name: str) -> None:
    event = generic_event(SOURCE, payload)
    assert (event.source, event.name) == ("alerts", name)


def test_the_same_body_has_one_fingerprint_per_source() -> None:
    another = replace(SOURCE, metadata=Metadata(name="alerts", uid="uid-2"))
    assert fingerprint_of(SOURCE, b"a") == fingerprint_of(SOURCE, b"a")
    assert len({fingerprint_of(SOURCE, b"a"), fingerprint_of(SOURCE, b"b"), fingerprint_of(another, b"a")}) == 3


def test_a_signed_id_distinguishes_two_deliveries_with_the_same_body() -> None:
    assert fingerprint_of(SOURCE, b"a", "msg_1") == fingerprint_of(SOURCE, b"b", "msg_1")
    assert fingerprint_of(SOURCE, b"a", "msg_1") != fingerprint_of(SOURCE, b"a", "msg_2")
