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
    if not _is_authors(written, event):
        return None if _has_rights(event) else "it was changed by another than its author, and GitHub says no more"
    association = written.get("author_association")
    if association not in spec.allowed_associations:
        return "its author is not one of `allowedAssociations`"
    return None


def _is_authors(written: Mapping[str, Any], event: IncomingEvent) -> bool:
    """Whether the author of what was written is who caused the event. People are told apart by id: names change."""
    author, sender = written.get("user"), event.find("sender", "id")
    return isinstance(author, Mapping) and isinstance(sender, int) and author.get("id") == sender


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
    own = event.find("repository", "id")
    if isinstance(event.find("pull_request"), Mapping):
        return not _same(event.find("pull_request", "head", "repo", "id"), own)
    for run in ("workflow_run", "check_suite"):
        if isinstance(event.find(run), Mapping) and event.find(run, "head_repository") is not None:
            return not _same(event.find(run, "head_repository", "id"), own)
    return False


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, int) and one == other
