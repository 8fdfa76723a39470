"""Who may start a run through a webhook of GitHub's: one question, answered by what GitHub has signed."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from labrats.intake.events import IncomingEvent
from labrats.model.webhook_source import DEFAULT_ASSOCIATIONS, WebhookSourceSpec

AGENT_MARK: Final = "<!-- labrats:agent -->"
"""In what agents write by the account of a person: it starts nobody again. Of a GitHub App's the sender says it."""

_WRITTEN: Final = ("comment", "review", "answer", "discussion", "issue", "pull_request")
"""What people write, the most particular first: an event about a comment is not one about its issue."""

_TEXTS: Final = ("body", "title")

_NEEDS_RIGHTS: Final = frozenset(
    """
    labeled unlabeled assigned unassigned milestoned demilestoned pinned unpinned locked unlocked transferred closed
    reopened ready_for_review converted_to_draft review_requested review_request_removed dismissed answered unanswered
    category_changed auto_merge_enabled auto_merge_disabled enqueued dequeued typed untyped
    """.split()
)
"""What only those can do, beside the author, whom the repository has given a right to it."""


def why_not(event: IncomingEvent, spec: WebhookSourceSpec) -> str | None:
    """Why the event starts nobody, as a sentence; None where it may.

    event: one of GitHub's. What only its name says is not asked: that is not signed.
    """
    override = spec.override_of(event.text("repository", "full_name"))
    if override and not override.enabled:
        return "the repository is switched off in `repoOverrides`"
    if event.text("sender", "type") == "Bot":
        return "it comes of a bot, and what agents do must not start them again"
    return _why_not_written(event, spec) or _why_not_its_code(event, spec)


def is_outsiders(event: IncomingEvent, spec: WebhookSourceSpec) -> bool:
    """Whether an event that starts somebody is of those alone whom `spec` lets in beyond the repository's own people.

    What a source of another kind than GitHub's has signed is its owner's.
    """
    strict = replace(spec, allowed_associations=DEFAULT_ASSOCIATIONS, allow_forks=False)
    return spec.type == "github" and why_not(event, strict) is not None


def _why_not_written(event: IncomingEvent, spec: WebhookSourceSpec) -> str | None:
    if event.find("pages") is not None:
        return "GitHub does not say who may write in the wiki"
    written = next((found for key in _WRITTEN if isinstance(found := event.find(key), Mapping)), None)
    if written is None:
        return None
    if any(AGENT_MARK in str(written.get(key) or "") for key in _TEXTS):
        return "an agent has written it"
    is_authors = _is_authors(written, event)
    if not is_authors and _has_rights(event):
        return None
    if is_authors is False:
        return "it was changed by another than its author, and GitHub says no more"
    association = written.get("author_association")
    if association not in spec.allowed_associations:
        return "its author is not one of `allowedAssociations`"
    return None


def _is_authors(written: Mapping[str, Any], event: IncomingEvent) -> bool | None:
    """Whether the author of what was written is who caused the event. People are told apart by id: names change.

    None where the author's id is not said. GitHub always says it; others that write in its way may not.
    """
    author, sender = written.get("user", {}), event.find("sender", "id")
    if isinstance(author, Mapping) and "id" not in author:
        return None
    return isinstance(author, Mapping) and _same(sender, author["id"])


def _has_rights(event: IncomingEvent) -> bool:
    """Whether what the sender did to something of another's needs a right in the repository.

    Pushing to a pull request's branch needs one only where that is the repository's own.
    """
    action = event.text("action")
    return action in _NEEDS_RIGHTS or (action == "synchronize" and not _is_from_fork(event))


def _why_not_its_code(event: IncomingEvent, spec: WebhookSourceSpec) -> str | None:
    if spec.allow_forks:
        return None
    if _is_from_fork(event):
        return "it is about the code of a fork, and `allowForks` is off"
    if event.find("issue", "pull_request") is not None:
        return "a comment on a pull request does not say whether that is from a fork, and `allowForks` is off"
    return None


def _is_from_fork(event: IncomingEvent) -> bool:
    """Whether the code that it is about is not in the repository. Where that is not said, it is."""
    if isinstance(event.find("pull_request"), Mapping):
        return not _is_of_repository(event.find("pull_request", "head", "repo"), event)
    for run in ("workflow_run", "check_suite"):
        if isinstance(event.find(run), Mapping) and (head := event.find(run, "head_repository")) is not None:
            return not _is_of_repository(head, event)
    return False


def _is_of_repository(head: Any, event: IncomingEvent) -> bool:
    """Whether `head` is the event's repository: by id and by name, of which GitHub always sends both.

    Only where neither has an id, the name alone will do.
    """
    own = event.find("repository")
    if not isinstance(head, Mapping) or not isinstance(own, Mapping):
        return False
    names = (head.get("full_name"), own.get("full_name"))
    has_its_name = names[0] == names[1]
    if "id" in head or "id" in own:
        return _same(head.get("id"), own.get("id")) and (has_its_name or None in names)
    return has_its_name and None not in names


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, int) and one == other
