"""Replies to pull requests: comments and reviews that may ask the agent of a job for more."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from labrats.index.catalog import Catalog
from labrats.intake.event_authorization import is_external_author, reason_to_ignore_author
from labrats.intake.events import IncomingEvent
from labrats.intake.report_targets import target_of
from labrats.model.report import Report
from labrats.model.thread_requests import ThreadAction, ThreadRequest
from labrats.model.webhook_source import WebhookSource

_COMMENT: Final = "issue_comment.created"
_REVIEW: Final = "pull_request_review.submitted"
_ASKING: Final = ("commented", "changes_requested")
"""GitHub's names for the verdicts of reviews that ask for something."""


def reply_of(event: IncomingEvent, source: WebhookSource, catalog: Catalog, now: datetime) -> ThreadRequest | None:
    """Return the request in a reply to a pull request; None for another event, or if its author may ask for nothing.

    A receiver reads no jobs, so it does not know whether a job made the pull request.
    """
    if source.spec.credentials_ref is None:
        return None
    target, review = target_of(event, source), event.find("review", "id")
    if target is None or target.pull_request is None or not any(map(_opens_pull_requests, _reports(source, catalog))):
        return None
    if event.name == _COMMENT and target.comment is not None:
        request_id, url, review = f"comment-{target.comment}", event.text("issue", "html_url"), None
    elif event.name == _REVIEW and isinstance(review, int) and event.text("review", "state") in _ASKING:
        request_id, url = f"review-{review}", event.text("pull_request", "html_url")
    else:
        return None
    if reason_to_ignore_author(event, source.spec):
        return None
    return ThreadRequest(
        id=request_id,
        action=ThreadAction.REPLY,
        event=event.name,
        target=target,
        received_at=now,
        url=url,
        review=review,
        untrusted=is_external_author(event, source.spec),
    )


def _reports(source: WebhookSource, catalog: Catalog) -> Iterator[Report | None]:
    """Yield the reports that a job of the source may have, from all layers."""
    yield source.spec.report
    yield from (override.report for override in source.spec.repo_overrides.values())
    for agent in catalog.agents:
        yield agent.spec.report
        yield from (trigger.report for trigger in agent.spec.event_triggers)


def _opens_pull_requests(report: Report | None) -> bool:
    return report is not None and report.pull_request is not None and report.pull_request.enabled
