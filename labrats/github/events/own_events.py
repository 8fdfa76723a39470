"""Events that the engine has caused itself with a personal token: GitHub names the token's owner as their sender.

The publisher stores what it writes in the status of the webhook source, before it writes it. Comments, reviews and pull
requests of the engine have a mark in their text instead.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from labrats.intake.events import IncomingEvent
from labrats.model.webhook_source import OwnWrite, WebhookSource
from labrats.ports import Store, compare_and_set

REMEMBERED: Final = timedelta(minutes=10)
"""Time for which a write is stored. GitHub delivers an event within seconds."""

_MOST: Final = 200
_LABELLING: Final = {"labeled": False, "unlabeled": True}
_COMMITS: Final = (("after",), ("head_commit", "id"), ("pull_request", "head", "sha"))


async def note_writes(store: Store, source: str, writes: Sequence[OwnWrite], now: datetime) -> None:
    """Store what the engine is about to write. Raises NotFound, RetryLater."""

    def change(stored: WebhookSource) -> WebhookSource:
        kept = (*_recent(stored.status.own_writes, now), *writes)[-_MOST:]
        return replace(stored, status=replace(stored.status, own_writes=kept))

    await compare_and_set(store, lambda: store.get(WebhookSource, source), change)


def may_be_own(event: IncomingEvent) -> bool:
    """Return whether the event is of a kind that the engine causes, and that shows no mark."""
    return event.text("action") in (*_LABELLING, "synchronize") or event.find("commits") is not None


def reason_of_own_event(event: IncomingEvent, source: WebhookSource, now: datetime) -> str | None:
    """Return why an event starts no agent that the engine has caused itself; None for another event."""
    sender = (event.text("sender", "login") or "").lower()
    for write in _recent(source.status.own_writes, now):
        if write.login.lower() == sender and write.repository == (event.text("repository", "full_name") or "").lower():
            if write.label and _is_about_label(event, write):
                return f"the engine itself has {'removed' if write.is_removal else 'added'} this label"
            if write.commit and write.commit in (event.find(*path) for path in _COMMITS):
                return "the engine itself has pushed this commit"
    return None


def _is_about_label(event: IncomingEvent, write: OwnWrite) -> bool:
    label, numbers = event.text("label", "name"), (event.find(kind, "number") for kind in ("issue", "pull_request"))
    return (
        _LABELLING.get(event.text("action") or "") is write.is_removal
        and write.number in numbers
        and (label or "").lower() == (write.label or "").lower()
    )


def _recent(writes: Iterable[OwnWrite], now: datetime) -> tuple[OwnWrite, ...]:
    return tuple(write for write in writes if now - write.at < REMEMBERED)
