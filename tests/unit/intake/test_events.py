"""Events: the agents whose triggers match, and the repository they are about."""

from typing import Any

import pytest

from labrats.intake.events import IncomingEvent, git_ref_of, listens_to, metadata_of, triggered_agents
from labrats.model.agent import Trigger
from tests.support.builders import a_trigger, an_agent

PAYLOAD = {
    "action": "labeled",
    "label": {"name": "ai"},
    "issue": {"number": 7, "labels": [{"name": "bug"}, {"name": "ai"}], "draft": False, "milestone": None},
}


def an_event(name: str = "issues.labeled", payload: Any = PAYLOAD, source: str = "github") -> IncomingEvent:
    return IncomingEvent(source, name, payload)


def starts(trigger: Trigger, event: IncomingEvent | None = None) -> bool:
    return bool(triggered_agents(event or an_event(), [an_agent("a", trigger)]))


class TestMatching:
    @pytest.mark.parametrize(
        ("events", "matches"),
        [
            (["issues.labeled"], True),
            (["issues.opened", "issues.labeled"], True),
            (["issues.*"], True),
            (["*"], True),
            (["issues.[kl]abeled"], True),
            (["issues"], False),
            (["Issues.Labeled"], False),
            (["pull_request.*"], False),
        ],
    )
    def test_events_are_names_or_globs(self, events: list[str], matches: bool) -> None:
        assert starts(a_trigger(*events)) is matches

    def test_a_trigger_for_another_source_does_not_match(self) -> None:
        assert not starts(a_trigger(source="gitlab"))

    def test_a_trigger_without_events_matches_nothing(self) -> None:
        assert not starts(Trigger(source="github"))

    def test_a_disabled_trigger_or_agent_does_not_match(self) -> None:
        assert not starts(a_trigger(enabled=False))
        assert triggered_agents(an_event(), [an_agent("a", a_trigger(), enabled=False)]) == []

    def test_an_agent_is_started_once_by_the_first_trigger_that_matches(self) -> None:
        first, second = a_trigger("issues.*", instruction="first"), a_trigger(instruction="second")
        agent = an_agent("a", a_trigger(filters={"action": "opened"}), first, second)
        assert triggered_agents(an_event(), [agent]) == [(agent, first)]

    @pytest.mark.parametrize(
        ("filters", "holds"),
        [
            ({}, True),
            ({"label.name": "ai"}, True),
            ({"label.name": "bug"}, False),
            ({"label.name": ["bug", "ai"]}, True),
            ({"label.name": ["bug", "docs"]}, False),
            ({"label.name": []}, False),
            ({"label.name": "a*"}, True),
            ({"label.name": ["b*", "?i"]}, True),
            ({"issue.number": 7}, True),
            ({"issue.number": "7"}, False),
            ({"issue.draft": False}, True),
            ({"issue.draft": 0}, False),
            ({"issue.milestone": None}, True),
            ({"issue.labels.name": "bug"}, True),
            ({"issue.labels.0.name": "ai"}, False),
            ({"issue.labels.1.name": "ai"}, True),
            ({"issue.labels.9.name": "ai"}, False),
            ({"nothing.like.it": None}, False),
            ({"action.deeper": "x"}, False),
            ({"label.name": "ai", "issue.number": 8}, False),
        ],
    )
    def test_all_filters_must_hold(self, filters: dict[str, Any], holds: bool) -> None:
        assert starts(a_trigger(filters=filters)) is holds

    def test_an_invalid_filter_matches_nothing(self) -> None:
        assert not starts(a_trigger(filters={"label": {"name": "bug"}, "": [["x"]], ".": None}))

    @pytest.mark.parametrize(
        ("source", "event", "listens"),
        [(None, None, True), ("github", None, True), (None, "issues.labeled", True), ("gitlab", None, False)],
    )
    def test_listens_to_accepts_any_source_or_event(self, source: str | None, event: str | None, listens: bool) -> None:
        assert listens_to(a_trigger(), source, event) is listens


REPOSITORY = {"full_name": "octo/demo", "default_branch": "main", "clone_url": "https://github.com/octo/demo.git"}


def a_pull_request(head: str, state: str = "open") -> dict[str, Any]:
    return {"number": 5, "state": state, "head": {"ref": "fix", "repo": {"full_name": head}}}


class TestRepository:
    @pytest.mark.parametrize(
        ("name", "payload", "ref"),
        [
            ("issues.opened", {"issue": {"number": 7}}, "main"),
            ("pull_request.opened", {"pull_request": a_pull_request("octo/demo")}, "fix"),
            ("pull_request.opened", {"pull_request": a_pull_request("fork/demo")}, "refs/pull/5/head"),
            ("pull_request.closed", {"pull_request": a_pull_request("octo/demo", "closed")}, "refs/pull/5/head"),
            ("pull_request.opened", {"pull_request": {"head": {"repo": None}}, "number": 5}, "refs/pull/5/head"),
            ("issue_comment.created", {"issue": {"number": 7, "pull_request": {"url": "…"}}}, "refs/pull/7/head"),
            ("push", {"ref": "refs/heads/topic/a"}, "topic/a"),
            ("push", {"ref": "refs/tags/v1"}, "v1"),
            ("push", {"ref": "refs/heads/gone", "deleted": True}, "main"),
            ("delete", {"ref": "gone", "ref_type": "branch"}, "main"),
            ("create", {"ref": "new", "ref_type": "branch"}, "new"),
            ("workflow_run.completed", {"workflow_run": {"head_branch": "topic"}}, "topic"),
            ("check_run.completed", {"check_run": {"check_suite": {"head_branch": "topic"}}}, "topic"),
            ("check_suite.completed", {"check_suite": {"head_branch": "1" * 40}}, f"refs/heads/{'1' * 40}"),
            (
                "check_suite.completed",
                {"check_suite": {"head_branch": "refs/pull/9/head"}},
                "refs/heads/refs/pull/9/head",
            ),
            ("release.published", {"release": {"tag_name": "v2"}}, "v2"),
            ("push", {"ref": "x" * 300}, None),
        ],
    )
    def test_the_git_ref_is_that_of_the_events_subject(
        self, name: str, payload: dict[str, Any], ref: str | None
    ) -> None:
        assert git_ref_of(IncomingEvent("github", name, {"repository": REPOSITORY} | payload)) == ref

    @pytest.mark.parametrize("payload", [{}, {"repository": "octo/demo"}, {"repository": None, "pull_request": []}])
    def test_an_event_of_another_format_has_no_git_ref(self, payload: dict[str, Any]) -> None:
        assert git_ref_of(IncomingEvent("other", "ping", payload)) is None

    def test_a_jobs_metadata_describe_the_events_subject(self) -> None:
        issue = {"number": 7, "title": "It crashes", "html_url": "https://github.com/octo/demo/issues/7"}
        payload = {"repository": REPOSITORY, "issue": issue, "sender": {"login": "mona"}}
        assert metadata_of(an_event("issues.opened", payload)) == {
            "event": "issues.opened",
            "repo": "octo/demo",
            "sender": "mona",
            "number": 7,
            "title": "It crashes",
            "url": "https://github.com/octo/demo/issues/7",
        }

    def test_metadata_omit_what_the_payload_lacks(self) -> None:
        assert metadata_of(an_event("tick", {})) == {"event": "tick"}
