"""Buttons of check runs on GitHub: *Re-run*, and those that the engine adds."""

import re
from datetime import datetime
from typing import Final

from labrats.intake.events import IncomingEvent
from labrats.intake.report_targets import target_of
from labrats.model.report import ReportTarget
from labrats.model.thread_requests import ThreadAction, ThreadRequest
from labrats.model.webhook_source import WebhookSource

_JOB_ID: Final = re.compile(r"ir-[0-9a-z-]{1,60}")
_RERUN: Final = "check_run.rerequested"
_BUTTON: Final = "check_run.requested_action"


def clicked_button_of(
    event: IncomingEvent, source: WebhookSource, fingerprint: str, now: datetime
) -> ThreadRequest | None:
    """Return the request of a person who has clicked a button of a job's check run; None for another event.

    GitHub offers the buttons only to people who may write to the repository. fingerprint: of the delivery.
    """
    override = source.spec.override_of(event.text("repository", "full_name"))
    is_person = event.text("sender", "type") == "User"
    if not is_person or (override and not override.enabled):
        return None
    job_id, target = event.text("check_run", "external_id") or "", target_of(event, source)
    action = _action_of(event)
    if action is None or target is None or not _JOB_ID.fullmatch(job_id):
        return None
    return ThreadRequest(
        id=f"click-{fingerprint[:32]}",
        action=action,
        event=event.name,
        target=ReportTarget(
            repository=target.repository,
            pull_request=target.pull_request,
            source=source.name,
            repository_id=target.repository_id,
        ),
        received_at=now,
        job=job_id,
    )


def _action_of(event: IncomingEvent) -> ThreadAction | None:
    if event.name == _RERUN:
        return ThreadAction.RETRY
    if event.name != _BUTTON:
        return None
    identifier = event.text("requested_action", "identifier")
    return ThreadAction(identifier) if identifier in (ThreadAction.CANCEL, ThreadAction.RETRY) else None
