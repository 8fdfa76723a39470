"""Events as webhooks describe them, from the answers of GitHub's API.

Who acted, and with which association, is in GitHub's answers alone. An event of which GitHub names no actor has no
sender, like one of an external contributor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from labrats.intake.deliveries import github_event
from labrats.intake.events import IncomingEvent

Json = Mapping[str, Any]
"""An object in an answer of GitHub."""

ACTIONS: Final = frozenset(
    """
    labeled unlabeled assigned unassigned milestoned demilestoned closed reopened locked unlocked pinned unpinned
    ready_for_review review_requested review_request_removed
    """.split()
)
"""The issue events of GitHub's API that webhooks report under the same name."""


@dataclass(frozen=True)
class PolledEvent:
    """An event that was read. at: its time at GitHub. id: of GitHub's issue event; None if the event itself has ids."""

    at: datetime
    event: IncomingEvent
    id: int | None = None


def time_of(item: Json, name: str) -> datetime | None:
    """Return a time of an object; None if it is missing or invalid."""
    try:
        return datetime.fromisoformat(item[name])
    except (KeyError, TypeError, ValueError):
        return None


def opened(repository: Json, subject: Json, kind: str) -> IncomingEvent:
    """Return the event of a new issue or pull request. kind: `issue` or `pull_request`."""
    name = "issues" if kind == "issue" else kind
    return _event(name, "opened", repository, subject.get("user"), _subject(kind, subject))


def commented(repository: Json, issue: Json, comment: Json) -> IncomingEvent:
    """Return the event of a new comment on an issue or pull request."""
    return _event("issue_comment", "created", repository, comment.get("user"), {"issue": issue, "comment": comment})


def review_commented(repository: Json, pull: Json, comment: Json) -> IncomingEvent:
    """Return the event of a new comment on a line of a pull request."""
    parts = {"pull_request": pull, "comment": comment}
    return _event("pull_request_review_comment", "created", repository, comment.get("user"), parts)


def reviewed(repository: Json, pull: Json, review: Json) -> IncomingEvent:
    """Return the event of a review. A webhook writes its state in small letters."""
    shown = {**review, "state": str(review.get("state")).lower()}
    parts = {"pull_request": pull, "review": shown}
    return _event("pull_request_review", "submitted", repository, review.get("user"), parts)


def changed(repository: Json, subject: Json, kind: str, found: Json) -> IncomingEvent:
    """Return the event of an action on an issue or pull request. found: GitHub's issue event.

    The subject was last changed at the time of the action, as in a webhook. It may have been changed again since.
    """
    name = "issues" if kind == "issue" else kind
    details = {each: found[each] for each in ("label", "assignee", "milestone", "requested_reviewer") if each in found}
    shown = {**subject, "updated_at": found.get("created_at")}
    parts = {**_subject(kind, shown), **details}
    return _event(name, str(found.get("event")), repository, found.get("actor"), parts)


def pushed(repository: Json, pull: Json, activity: Json) -> IncomingEvent:
    """Return the event of a push to the branch of a pull request. activity: GitHub's record of the push."""
    head = {**pull["head"], "sha": activity.get("after")}
    parts = {
        "pull_request": {**pull, "head": head},
        "number": pull.get("number"),
        "before": activity.get("before"),
        "after": activity.get("after"),
    }
    return _event("pull_request", "synchronize", repository, activity.get("actor"), parts)


def check_ended(repository: Json, pull: Json, run: Json) -> IncomingEvent:
    """Return the event of a check that has ended for the head of a pull request."""
    ends = {
        end: {name: pull[end].get(name) for name in ("ref", "sha")} | {"repo": _short(pull[end].get("repo"))}
        for end in ("head", "base")
    }
    listed = [{"id": pull.get("id"), "number": pull.get("number"), **ends}]
    suite = {**(run.get("check_suite") or {}), "head_branch": pull["head"].get("ref")}
    shown = {**run, "pull_requests": listed, "check_suite": suite}
    return _event("check_run", "completed", repository, None, {"check_run": shown})


def _subject(kind: str, subject: Json) -> Json:
    """Return the parts that describe an issue or pull request. Only events of the latter have its number beside it."""
    return {kind: subject} | ({"number": subject.get("number")} if kind == "pull_request" else {})


def _short(repository: Json | None) -> Json:
    return {name: (repository or {}).get(name) for name in ("id", "name", "full_name", "url")}


def _event(name: str, action: str, repository: Json, actor: Json | None, parts: Json) -> IncomingEvent:
    sender = {"sender": actor} if actor else {}
    return github_event(name, {"action": action, **parts, "repository": repository, **sender})
