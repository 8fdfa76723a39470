"""Events in threads on GitHub that ask the engine for something: commands, buttons, replies and failed checks."""

from datetime import datetime

from labrats.github.events.check_buttons import clicked_button_of
from labrats.github.events.comment_commands import command_of, refused_mention
from labrats.github.events.failed_checks import failed_checks_of
from labrats.github.events.pull_request_replies import reply_of
from labrats.index.catalog import Catalog
from labrats.intake.event_authorization import reason_to_ignore_author
from labrats.intake.events import IncomingEvent
from labrats.intake.forge import ThreadEvent
from labrats.model.thread_requests import ThreadAction
from labrats.model.webhook_source import GITHUB, WebhookSource


def thread_event_of(
    event: IncomingEvent, source: WebhookSource, catalog: Catalog, fingerprint: str, now: datetime
) -> ThreadEvent | None:
    """Return the requests in an event that a source has received; None if it asks for nothing.

    fingerprint: of the delivery.
    """
    if source.spec.type != GITHUB:
        return None
    if command := command_of(event, source, catalog, now):
        reason = reason_to_ignore_author(event, source.spec)
        if reason is None and source.spec.credentials_ref is None:
            reason = "commands need the source's `credentialsRef`, with which the engine answers them"
        if reason:
            return ThreadEvent(refused_mention(command, event, source), reason)
        is_mention = command.action is ThreadAction.MENTION
        return ThreadEvent(
            [command], "no trigger matches; it asks for a follow-up, or an agent" if is_mention else None
        )
    if failed := failed_checks_of(event, source, catalog, now):
        return ThreadEvent(failed, "an agent repairs the checks if a job made the pull request")
    if clicked := clicked_button_of(event, source, fingerprint, now):
        return ThreadEvent([clicked])
    if reply := reply_of(event, source, catalog, now):
        return ThreadEvent([reply], "no trigger matches; it is a follow-up if a job made the pull request")
    return None
