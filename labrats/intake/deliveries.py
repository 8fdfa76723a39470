"""What a webhook brings, once it is known to be its source's."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from labrats.intake.events import IncomingEvent
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import Conflict, NotFound
from labrats.model.job import Job
from labrats.model.record import Metadata
from labrats.model.webhook_source import OWNER_PREFIX, WebhookSource
from labrats.ports import Store

PING: Final = "ping"
"""What GitHub sends when a webhook is set up."""

_FINGERPRINT: Final = "fingerprint"
_PUSH: Final = "push"

UNNAMED: Final = "received"
"""The event of a generic source whose body names none."""

_LONGEST_NAME: Final = 200


@dataclass(frozen=True)
class Delivery:
    """One delivery to `source`. fingerprint: the same for whatever is the same delivery, sent again.

    id: the one that GitHub gives it, and keeps when it sends it again. Nobody has signed it.
    """

    source: WebhookSource
    event: IncomingEvent
    fingerprint: str
    id: str | None = None

    @property
    def owner(self) -> str:
        """Whom its jobs belong to."""
        return f"{OWNER_PREFIX}{self.source.name}"


def fingerprint(source: WebhookSource, body: bytes, signed_id: str | None = None) -> str:
    """What tells a delivery from others: its body, or its id where that was signed.

    An id that was not signed is no use: whoever has caught a delivery can send it again under a new one.
    """
    told = signed_id.encode() if signed_id else hashlib.sha256(body).digest()
    return hashlib.sha256(b"\0".join((source.metadata.uid.encode(), told))).hexdigest()


async def known_fingerprint(store: Store, delivery: Delivery) -> str:
    """Return the fingerprint of the delivery that had the same id before, or else its own.

    The id is a second way to know a delivery again, beside its body. A forged one only names jobs that there are.
    """
    if delivery.id is None:
        return delivery.fingerprint
    try:
        return (await store.get(ConfigMap, _note_name(delivery))).data[_FINGERPRINT]
    except (NotFound, KeyError):
        return delivery.fingerprint


async def remember(store: Store, delivery: Delivery, job: Job) -> None:
    """Keep the delivery's id for as long as its first job is kept."""
    if delivery.id is None:
        return
    metadata = Metadata(name=_note_name(delivery), owner=job.as_owner())
    with suppress(Conflict):  # it was sent again
        await store.create(ConfigMap(metadata=metadata, data={_FINGERPRINT: delivery.fingerprint}))


def _note_name(delivery: Delivery) -> str:
    told = f"{delivery.source.metadata.uid}\0{delivery.id}"
    return f"delivery-{hashlib.sha256(told.encode()).hexdigest()[:32]}"


def github_event(name: str, payload: Mapping[str, Any]) -> IncomingEvent:
    """The event as triggers name it: `issues.labeled`, or `push` where there is no action."""
    action = payload.get("action")
    full_name = f"{name}.{action}" if isinstance(action, str) and action else name
    return IncomingEvent("github", full_name[:_LONGEST_NAME], payload)


def generic_event(source: WebhookSource, payload: Mapping[str, Any]) -> IncomingEvent:
    """The event of a source that is not GitHub: its source is the source's name, its name what the body says."""
    named = next((each for key in ("type", "event") if isinstance(each := payload.get(key), str) and each), UNNAMED)
    return IncomingEvent(source.name, named[:_LONGEST_NAME], payload)


_MARKS: Final[Mapping[str, str]] = {
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
"""The fields by which the body of each event is known. Bodies of other events have other ones."""

_REFS_TOO: Final = frozenset({"alert", "cache_location"})
"""What tells other events about a ref from a push without its commits: none of them has a field of `_MARKS`."""

_MARKS_OF: Final = {name: frozenset(marks.split()) for name, marks in _MARKS.items()}
_ALL_MARKS: Final = frozenset[str]().union(*_MARKS_OF.values())
_OPTIONAL: Final[Mapping[str, frozenset[str]]] = {
    "deployment": frozenset({"workflow_run"}),
    "deployment_status": frozenset({"workflow_run", "check_run"}),
    "workflow_job": frozenset({"deployment"}),
}


def fits(name: str, payload: Mapping[str, Any]) -> bool:
    """Whether a body is that of such an event of GitHub's.

    The event's name comes in a header, which GitHub does not sign: whoever has caught a comment could send it again as
    something that more agents, or other people, may start. An event that is not known here must look like no other.
    """
    marks = _ALL_MARKS & payload.keys()
    if name == _PUSH and not marks:
        return str(payload.get("ref")).startswith("refs/") and not _REFS_TOO & payload.keys()
    if name not in _MARKS_OF:
        return marks not in _MARKS_OF.values()
    return marks - _OPTIONAL.get(name, frozenset()) == _MARKS_OF[name]
