"""Deliveries of webhook sources: the event of each, and its identity when it comes again."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from labrats.intake.event_identity import identity_of, moment_of
from labrats.intake.events import IncomingEvent
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import Conflict, NotFound
from labrats.model.job import OWNER_PREFIX, Job
from labrats.model.record import Metadata
from labrats.model.webhook_source import GITHUB, WebhookSource
from labrats.ports import Store

PING: Final = "ping"
"""The event that GitHub sends when a webhook is created."""

_FINGERPRINT: Final = "fingerprint"
_PUSH: Final = "push"

UNNAMED: Final = "received"
"""The name of an event of a generic source whose body contains no name."""

_LONGEST_NAME: Final = 200
_MOMENT_SECONDS: Final = 2


@dataclass(frozen=True)
class Delivery:
    """One delivery from `source`. fingerprint: identifies the delivery, also when it is sent again.

    id: the id from GitHub, which a redelivery repeats. No signature covers it.
    """

    source: WebhookSource
    event: IncomingEvent
    fingerprint: str
    id: str | None = None

    @property
    def owner(self) -> str:
        """The owner of its jobs."""
        return f"{OWNER_PREFIX}{self.source.name}"


def fingerprint_of(source: WebhookSource, body: bytes, signed_id: str | None = None) -> str:
    """Return the fingerprint of a delivery: a hash of its signed id, or of its body where the id is not signed.

    An unsigned id proves nothing: an attacker who has captured a delivery could send it again under another id.
    """
    identity = signed_id.encode() if signed_id else hashlib.sha256(body).digest()
    return _fingerprint(source, identity)


def fingerprint_of_event(source: WebhookSource, event: IncomingEvent) -> str | None:
    """Return the fingerprint of an event of GitHub, however it came here; None if nothing identifies the event."""
    identity = identity_of(event) if source.spec.type == GITHUB else None
    return identity and _fingerprint(source, identity.encode())


def _fingerprint(source: WebhookSource, identity: bytes) -> str:
    return hashlib.sha256(b"\0".join((source.metadata.uid.encode(), identity))).hexdigest()


async def stored_fingerprint(store: Store, delivery: Delivery) -> str:
    """Return the fingerprint of the first delivery with the same id, or else the delivery's own.

    So a redelivery is recognized by its id, too. A forged id can only lead to jobs that already exist. An event that
    lasts a moment, such as a label, is also recognized if its other description has a time some seconds apart.
    """
    for name in [*_id_notes(delivery), *_moment_notes(delivery, _MOMENT_SECONDS)]:
        with suppress(NotFound, KeyError):
            return (await store.get(ConfigMap, name)).data[_FINGERPRINT]
    return delivery.fingerprint


async def store_fingerprint(store: Store, delivery: Delivery, job: Job) -> None:
    """Store the fingerprint under the delivery's id and its moment, for as long as its first `job` exists."""
    for name in [*_id_notes(delivery), *_moment_notes(delivery, 0)]:
        metadata = Metadata(name=name, owner=job.as_owner())
        with suppress(Conflict):  # a redelivery has stored it
            await store.create(ConfigMap(metadata=metadata, data={_FINGERPRINT: delivery.fingerprint}))


def _id_notes(delivery: Delivery) -> list[str]:
    return [_note_name(delivery, delivery.id)] if delivery.id is not None else []


def _moment_notes(delivery: Delivery, seconds: int) -> list[str]:
    """Return the names of the notes about a momentary event at its time, and up to some seconds apart from it."""
    if delivery.source.spec.type != GITHUB or (moment := moment_of(delivery.event)) is None:
        return []
    identity, at = moment
    shifts = sorted(range(-seconds, seconds + 1), key=abs)
    return [_note_name(delivery, f"{identity} {at + shift}") for shift in shifts]


def _note_name(delivery: Delivery, identity: str | None) -> str:
    identity = f"{delivery.source.metadata.uid}\0{identity}"
    return f"delivery-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"


def github_event(name: str, payload: Mapping[str, Any]) -> IncomingEvent:
    """Return the event with the name that triggers use: `issues.labeled`, or `push` without an action."""
    action = payload.get("action")
    full_name = f"{name}.{action}" if isinstance(action, str) and action else name
    return IncomingEvent("github", full_name[:_LONGEST_NAME], payload)


def generic_event(source: WebhookSource, payload: Mapping[str, Any]) -> IncomingEvent:
    """Return the event of a generic source. The source's name is its source; its name comes from the body."""
    named = next((each for key in ("type", "event") if isinstance(each := payload.get(key), str) and each), UNNAMED)
    return IncomingEvent(source.name, named[:_LONGEST_NAME], payload)


_EVENT_FIELDS: Final[Mapping[str, str]] = {
    "check_run": "check_run",
    "check_suite": "check_suite",
    "commit_comment": "comment",
    "create": "ref_type master_branch",
    "delete": "ref_type",
    "deployment": "deployment",
    "deployment_review": "workflow_run reviewers",
    "deployment_status": "deployment deployment_status",
    "discussion": "discussion",
    "discussion_comment": "discussion comment",
    "fork": "forkee",
    "gollum": "pages",
    "issue_comment": "issue comment",
    "issues": "issue",
    "merge_group": "merge_group",
    "package": "package",
    PING: "zen",
    "pull_request": "pull_request",
    "pull_request_review": "pull_request review",
    "pull_request_review_comment": "pull_request comment",
    "pull_request_review_thread": "pull_request thread",
    _PUSH: "commits",
    "release": "release",
    "repository_dispatch": "client_payload",
    "status": "commit",
    "workflow_dispatch": "inputs",
    "workflow_job": "workflow_job",
    "workflow_run": "workflow_run",
}
"""The fields that identify the body of each event. Bodies of different events have different sets of them."""

_FIELDS_OF_NO_PUSH: Final = frozenset({"alert", "cache_location"})
"""Fields of other events with a ref. They have no field of `_EVENT_FIELDS`, like a push without its commits."""

_FIELDS_BY_EVENT: Final = {name: frozenset(fields.split()) for name, fields in _EVENT_FIELDS.items()}
_ALL_FIELDS: Final = frozenset[str]().union(*_FIELDS_BY_EVENT.values())
_OPTIONAL_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "deployment": frozenset({"workflow_run"}),
    "deployment_status": frozenset({"workflow_run", "check_run"}),
    "workflow_job": frozenset({"deployment"}),
}


def is_body_of(name: str, payload: Mapping[str, Any]) -> bool:
    """Return whether `payload` can be the body of GitHub's event `name`.

    The name comes in a header, which GitHub does not sign. An attacker who has captured a comment could send it again
    as an event that starts other agents, or that more people may cause. The body of an unknown event must not look like
    the body of a known one.
    """
    fields = _ALL_FIELDS & payload.keys()
    if name == _PUSH and not fields:
        return str(payload.get("ref")).startswith("refs/") and not _FIELDS_OF_NO_PUSH & payload.keys()
    if name not in _FIELDS_BY_EVENT:
        return fields not in _FIELDS_BY_EVENT.values()
    return fields - _OPTIONAL_FIELDS.get(name, frozenset()) == _FIELDS_BY_EVENT[name]
