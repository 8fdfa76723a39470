"""Authorization of GitHub's events, from the signed body alone: may the people behind an event start agents?"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from labrats.intake.events import CHECKS, IncomingEvent, refs_of
from labrats.model.outside_text import AGENT_MARK
from labrats.model.untrusted_commits import MARK, is_for_untrusted_commits
from labrats.model.webhook_source import DEFAULT_ASSOCIATIONS, GITHUB, WebhookSourceSpec

_AUTHORED: Final = ("comment", "review", "answer", "discussion", "issue", "pull_request")
"""Objects with an author, the most specific first: an event about a comment contains its issue, too."""

_OF_AUTHOR: Final = {"answer": "discussion", "review": "pull_request"}
"""Objects on which the author of the other one may act without a permission, although another user wrote them.

The author of a discussion may mark its answer. A push of the author of a pull request dismisses reviews.
"""

_OF_WRITERS: Final = frozenset(
    """
    client_payload commits inputs label master_branch member merge_group milestone package pusher pusher_type
    registry_package release rule
    """.split()
)
"""Fields of events without an author that only people who may write to the repository cause, or GitHub itself."""

_RUNS_OF_WRITERS: Final = frozenset(
    "push pull_request schedule workflow_dispatch repository_dispatch merge_group release create delete".split()
)
"""The events for which people who may write to the repository run a workflow, if its code is in the repository."""

_TEXTS: Final = ("body", "title")
_PULL_REQUEST_REFS: Final = "refs/pull/"

_PRIVILEGED_ACTIONS: Final = frozenset(
    """
    labeled unlabeled assigned unassigned milestoned demilestoned pinned unpinned locked unlocked transferred closed
    reopened ready_for_review converted_to_draft review_requested review_request_removed dismissed answered unanswered
    category_changed auto_merge_enabled auto_merge_disabled enqueued dequeued typed untyped
    """.split()
)
"""Actions that need permissions in the repository, unless the author performs them."""


def reason_to_ignore(event: IncomingEvent, spec: WebhookSourceSpec) -> str | None:
    """Return why the event may start no agent, as a sentence; None if it may.

    event: an event of GitHub. Its name is ignored, because it is not signed.
    """
    return reason_to_ignore_author(event, spec) or _problem_of_code(event, spec)


def reason_to_ignore_author(event: IncomingEvent, spec: WebhookSourceSpec) -> str | None:
    """Return why the people behind an event may ask for nothing, as `reason_to_ignore` does. Any code may be meant."""
    override = spec.override_of(event.text("repository", "full_name"))
    if override and not override.enabled:
        return "the repository is disabled in `repoOverrides`"
    if event.text("sender", "type") == "Bot":
        return "its sender is a bot, and the work of agents must not start agents"
    return _problem_of_author(event, spec)


def is_by_external_contributor(event: IncomingEvent, spec: WebhookSourceSpec) -> bool:
    """Return whether the event comes from an external contributor, or may: the default settings would not admit it.

    So may a check of a fork, and an event that anybody may cause and that shows no author. An event about the commits
    of an untrusted job counts as one, whoever causes it. An event of a generic source never does.
    """
    if spec.type != GITHUB:
        return False
    strict = replace(spec, allowed_associations=DEFAULT_ASSOCIATIONS, allow_forks=False)
    return (
        reason_to_ignore(event, strict) is not None or not _shows_permission(event) or is_about_untrusted_commits(event)
    )


def is_about_untrusted_commits(event: IncomingEvent) -> bool:
    """Return whether the event is about a branch or pull request of the engine with commits of untrusted jobs."""
    texts = (event.find(kind, "body") for kind in ("pull_request", "issue"))
    return any(map(is_for_untrusted_commits, refs_of(event))) or any(MARK in str(text) for text in texts)


def is_external_author(event: IncomingEvent, spec: WebhookSourceSpec) -> bool:
    """Return whether an external contributor wrote what the event is about, whatever code it is about."""
    return reason_to_ignore_author(event, replace(spec, allowed_associations=DEFAULT_ASSOCIATIONS)) is not None


def _problem_of_author(event: IncomingEvent, spec: WebhookSourceSpec) -> str | None:
    if event.find("pages") is not None:
        return "GitHub does not report who may edit the wiki"
    kind = _kind_of(event)
    if kind is None:
        return None
    if any(AGENT_MARK in str(event.find(kind, text) or "") for text in _TEXTS):
        return "an agent wrote it"
    authored = _authored(kind, event)
    is_by_author = _is_by_author(authored, event)
    if not is_by_author and _needed_permission(event):
        return None
    if is_by_author is False:
        return "its sender is not the author, and GitHub reports no association of the sender"
    association = authored.get("author_association")
    if association not in spec.allowed_associations:
        return "its author is not one of `allowedAssociations`"
    return None


def _authored(kind: str, event: IncomingEvent) -> Mapping[str, Any]:
    """Return the object whose author needs an association: that of the kind, or that of which the sender is author."""
    whole = event.find(_OF_AUTHOR.get(kind, ""))
    is_by_its_author = isinstance(whole, Mapping) and _is_by_author(whole, event)
    found: Mapping[str, Any] = whole if is_by_its_author and _is_privileged(event) else event.find(kind)
    return found


def _is_by_author(authored: Mapping[str, Any], event: IncomingEvent) -> bool | None:
    """Return whether the sender of the event is the author. Compares ids, because names can change.

    None if the author's id is missing. GitHub always sends it; other services that imitate its format may not.
    """
    author, sender = authored.get("user", {}), event.find("sender", "id")
    if isinstance(author, Mapping) and "id" not in author:
        return None
    return isinstance(author, Mapping) and _same(sender, author["id"])


def _needed_permission(event: IncomingEvent) -> bool:
    """Return whether the sender, who is not the author, needed a permission in the repository for the action.

    A push to the branch of a pull request needs one only if the branch is in the repository itself.
    """
    return _is_privileged(event) or (event.text("action") == "synchronize" and not _is_from_fork(event))


def _is_privileged(event: IncomingEvent) -> bool:
    return event.text("action") in _PRIVILEGED_ACTIONS


def _problem_of_code(event: IncomingEvent, spec: WebhookSourceSpec) -> str | None:
    if spec.allow_forks:
        return None
    if _is_from_fork(event):
        return "it is about the code of a fork, and `allowForks` is false"
    if event.find("issue", "pull_request") is not None and not isinstance(event.find("pull_request"), Mapping):
        return "a comment does not show whether its pull request is from a fork, and `allowForks` is false"
    return None


def _is_from_fork(event: IncomingEvent) -> bool:
    """Return whether the event is about code outside the repository.

    A pull request without a head repository counts as a fork's. Another event without one does not.
    """
    if isinstance(event.find("pull_request"), Mapping):
        return not _is_of_repository(event.find("pull_request", "head", "repo"), event)
    if any(str(event.find(*path)).startswith(_PULL_REQUEST_REFS) for path in (("ref",), ("deployment", "ref"))):
        return True  # the event does not show whose code it is
    checks = (found for key in CHECKS if isinstance(found := event.find(key), Mapping))
    heads = (check["head_repository"] for check in checks if "head_repository" in check)  # null once it is deleted
    return any(not _is_of_repository(head, event) for head in heads)


def _shows_permission(event: IncomingEvent) -> bool:
    """Return whether the event shows its author, whom `reason_to_ignore` checks, or a cause that needs a permission.

    Of the events of checks, only `workflow_run` names the repository of the code. The others list pull requests from
    the repository itself, and none for code of a fork, whose branch may be named like one of the repository.
    """
    if checks := [found for key in CHECKS if isinstance(found := event.find(key), Mapping)]:
        causes = {event.find("workflow_run", "event")} - {None}
        return causes <= _RUNS_OF_WRITERS and all(_is_of_own_code(check, event) for check in checks)
    if event.find("alert") is not None:
        # Others find vulnerabilities in pull requests, or passwords in texts that anybody may write.
        is_of_dependency = event.find("alert", "dependency") is not None
        return is_of_dependency or (event.text("ref") or "").startswith("refs/heads/")
    return _kind_of(event) is not None or not _OF_WRITERS.isdisjoint(event.payload)


def _kind_of(event: IncomingEvent) -> str | None:
    """Return the most specific object with an author."""
    return next((kind for kind in _AUTHORED if isinstance(event.find(kind), Mapping)), None)


def _is_of_own_code(check: Mapping[str, Any], event: IncomingEvent) -> bool:
    head, listed = check.get("head_repository"), check.get("pull_requests")
    heads = [each.get("head") for each in listed or () if isinstance(each, Mapping)]
    repositories = [head, *(each.get("repo") for each in heads if isinstance(each, Mapping))]
    return any(_is_of_repository(each, event) for each in repositories)


def _is_of_repository(head: Any, event: IncomingEvent) -> bool:
    """Return whether `head` is the event's repository: both id and name are equal. GitHub always sends both.

    The name alone counts if neither repository has an id.
    """
    base = event.find("repository")
    if not isinstance(head, Mapping) or not isinstance(base, Mapping):
        return False
    names = (head.get("full_name"), base.get("full_name"))
    has_same_name = names[0] == names[1]
    if "id" in head or "id" in base:
        return _same(head.get("id"), base.get("id")) and (has_same_name or None in names)
    return has_same_name and None not in names


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, int) and one == other
