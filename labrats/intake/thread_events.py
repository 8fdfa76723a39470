"""Events in threads on GitHub that ask the engine for something: commands, buttons, replies and failed checks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from labrats.index.catalog import Catalog
from labrats.intake.check_buttons import clicked_button_of
from labrats.intake.comment_commands import command_of, refused_mention
from labrats.intake.event_authorization import reason_to_ignore_author
from labrats.intake.events import IncomingEvent
from labrats.intake.failed_checks import failed_checks_of
from labrats.intake.pull_request_replies import reply_of
from labrats.model.thread_requests import ThreadAction, ThreadRequest
from labrats.model.webhook_source import GITHUB, WebhookSource

_REPLIES: Final = (ThreadAction.REPLY, ThreadAction.MENTION)


@dataclass(frozen=True)
class ThreadEvent:
    """The requests of an event. Only the event of a reply or mention may start agents by triggers instead.

    note: why the event starts no agent, or has no requests, as a sentence. None for a command.
    """

    requests: Sequence[ThreadRequest]
    note: str | None = None

    @property
    def command(self) -> ThreadAction | None:
        """The command in the comment, or of the button."""
        return self.requests[0].action if self.requests and self.note is None else None

    @property
    def is_reply(self) -> bool:
        return any(request.action in _REPLIES for request in self.requests) and not self.is_refused

    @property
    def is_refused(self) -> bool:
        """True for a mention by somebody who may ask for nothing, which gets a reaction."""
        return any(request.action is ThreadAction.MENTION and request.answer for request in self.requests)


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
