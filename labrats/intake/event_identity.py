"""The identity of an event of GitHub, by which a webhook and an answer of GitHub's API are about one event."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from labrats.intake.events import IncomingEvent

_ONCE: Final[Mapping[str, tuple[str, ...]]] = {
    "issues.opened": ("issue", "id"),
    "issue_comment.created": ("comment", "id"),
    "pull_request.opened": ("pull_request", "id"),
    "pull_request_review.submitted": ("review", "id"),
    "pull_request_review_comment.created": ("comment", "id"),
    "check_run.completed": ("check_run", "id"),
}
"""The events that happen once to an object, each with the path to the object's id."""

_SUBJECTS: Final[Mapping[str, str]] = {"issues": "issue", "pull_request": "pull_request"}
_MOMENTARY: Final[Mapping[str, tuple[str, ...]]] = {
    "labeled": ("label", "name"),
    "unlabeled": ("label", "name"),
    "assigned": ("assignee", "login"),
    "unassigned": ("assignee", "login"),
    "closed": (),
    "reopened": (),
    "ready_for_review": (),
}
"""The actions that can be repeated, each with the path to what tells two of one moment apart."""


def identity_of(event: IncomingEvent) -> str | None:
    """Return the identity of an event that happens once to an object; None for another event.

    It has the ids of the repository and of the object, which never change, unlike the time of its last change.
    """
    repository = event.find("repository", "id")
    if event.name == "pull_request.synchronize":
        subject, detail = event.find("pull_request", "id"), event.text("pull_request", "head", "sha")
    elif path := _ONCE.get(event.name):
        subject, detail = event.find(*path), ""
        if event.name == "check_run.completed":
            detail = event.text("check_run", "completed_at")  # a run can be run again
    else:
        return None
    if not isinstance(repository, int) or not isinstance(subject, int) or detail is None:
        return None
    return f"{repository} {event.name} {subject} {detail}"


def moment_of(event: IncomingEvent) -> tuple[str, int] | None:
    """Return the identity of an event that can be repeated, and its time in seconds; None for another event.

    A webhook has no id of such an event, and the time is that of the last change of its issue or pull request.
    """
    kind, _, action = event.name.partition(".")
    subject, path = _SUBJECTS.get(kind), _MOMENTARY.get(action)
    if subject is None or path is None:
        return None
    ids: tuple[Any, ...] = (event.find("repository", "id"), event.find(subject, "id"))
    detail = event.text(*path) if path else ""
    at = _seconds(event.text(subject, "updated_at"))
    if not all(isinstance(each, int) for each in ids) or detail is None or at is None:
        return None
    return f"{ids[0]} {event.name} {ids[1]} {detail}", at


def _seconds(text: str | None) -> int | None:
    try:
        return int(datetime.fromisoformat(text).timestamp()) if text else None
    except ValueError:
        return None
