"""Comments by which the engine says in a thread on GitHub why an event starts no agent: one a day for each reason."""

from datetime import datetime
from hashlib import sha256

from labrats.intake.events import IncomingEvent
from labrats.intake.report_targets import target_of
from labrats.model.thread_requests import ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import WebhookSource


def notice_of(
    event: IncomingEvent, source: WebhookSource, reason: str, text: str, now: datetime
) -> ThreadRequest | None:
    """Return the comment for the thread of the event; None where the engine cannot comment.

    reason: a short name. Of the comments with one reason, a repository gets the first of a day, UTC.
    """
    target = target_of(event, source)
    if target is None or target.number is None or source.spec.credentials_ref is None:
        return None
    identity = f"{reason} {target.repository.lower()} {now:%Y-%m-%d}"
    return ThreadRequest(
        id=f"notice-{sha256(identity.encode()).hexdigest()[:32]}",
        action=ThreadAction.HELP,
        event=event.name,
        target=target,
        received_at=now,
        url=event.text("issue", "html_url") or event.text("pull_request", "html_url"),
        answer=ThreadAnswer(text=text),
    )
