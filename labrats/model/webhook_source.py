"""A webhook source: a sender of signed events, with the settings of the jobs that its events start."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from labrats.model.condition import Condition
from labrats.model.config import JobConfig
from labrats.model.job import KeyReference
from labrats.model.record import Record, Resource
from labrats.model.report import Report
from labrats.model.thread_requests import ThreadRequest

SHORTEST_SECRET: Final = 16
"""The minimum length of a new signing secret: a shorter one could be guessed from a signed delivery."""

STARTING: Final = "Starting"
"""The reason of the condition `Ready` while the receiver of a source starts."""

GITHUB: Final = "github"

TOKEN: Final = "token"  # noqa: S105, the name of a key
APP_ID: Final = "appId"
PRIVATE_KEY: Final = "privateKey"
"""The keys of the Secret that `credentials_ref` names: either those of a GitHub App, or a token."""

APP_SECRET: Final = "github-app"  # noqa: S105, the name of a Secret
"""The Secret with the App that `labrats connect github` has created."""

WEBHOOK_SECRET: Final = "webhookSecret"  # noqa: S105, the name of a key
"""The key of that Secret with which an App signs its deliveries, if `labrats connect github` has created the App."""

SIGNING_KEY: Final = "signingKey"
COMMITTER: Final = "committer"
"""The keys of that Secret for signed pushes: an SSH private key, and the `Name <email>` of its owner."""

DEFAULT_ASSOCIATIONS: Final = ("OWNER", "MEMBER", "COLLABORATOR")
"""GitHub's names for the authors whose events start jobs."""


WEBHOOK: Final = "webhook"
POLL: Final = "poll"
"""Modes of a source: events are delivered to the engine, or it reads them from GitHub."""


class RepoOverride(Record):
    """Settings for the jobs of one repository."""

    enabled: bool = True
    model: str | None = None
    effort: str | None = None
    provider: str | None = None
    agent_trigger_name: str | None = None
    report: Report | None = None


class WebhookSourceSpec(Record):
    """The definition of a webhook source.

    type:            `github` or `generic`.
    mode:            `webhook` or `poll`.
    repositories:    `owner/repo` of those that are read in the mode `poll`.
    secret_ref:      the key that signs deliveries.
    repo_overrides:  by `owner/repo`.
    credentials_ref: the Secret with a GitHub App's id and key, or a token, for the jobs' repositories.
    """

    type: str
    enabled: bool = True
    secret_ref: KeyReference | None = None
    host: str | None = None
    path: str | None = None
    ingress_class_name: str | None = None
    tls_secret_name: str | None = None
    defaults: JobConfig = JobConfig()
    repo_overrides: dict[str, RepoOverride] = {}
    allowed_associations: tuple[str, ...] = DEFAULT_ASSOCIATIONS
    allow_forks: bool = False
    credentials_ref: str | None = None
    report: Report | None = None
    mode: str = WEBHOOK
    repositories: tuple[str, ...] = ()

    @property
    def polls(self) -> bool:
        return self.mode == POLL

    def override_of(self, repo_name: str | None) -> RepoOverride | None:
        """Return the override for a repository, ignoring case; None if there is none."""
        wanted = (repo_name or "").lower()
        return next((override for name, override in self.repo_overrides.items() if name.lower() == wanted), None)


STARTED: Final = "started"
UNMATCHED: Final = "unmatched"
IGNORED: Final = "ignored"
REFUSED: Final = "refused"
COMMAND: Final = "command"
"""Outcomes of deliveries; a `ping` is another."""

ACCEPTING: Final = "Accepting"
"""Type of the condition that is false while too many jobs wait."""

LONGEST_NOTE: Final = 120
"""Characters of each text in the record of a delivery, which is a part of the source's status."""


class DeliveryRecord(Record):
    """A delivery. repo: `owner/repo`. reason: why it started no agent. jobs: their ids.

    id:            orders deliveries by time; empty in a record of version 0.1.
    payload_bytes: size of its stored payload, see `payload_name`; 0 if none is stored.
    """

    at: datetime
    outcome: str
    id: str = ""
    payload_bytes: int = 0
    event: str | None = None
    repo: str | None = None
    reason: str | None = None
    jobs: tuple[str, ...] = ()


class OwnWrite(Record):
    """A write at GitHub with a personal token, by which the engine recognises the event that it causes.

    login:      of the token's owner, whom the event names as its sender. repository: `owner/repo`, in small letters.
    label:      that is added to the issue or pull request `number`, or removed from it.
    commit:     that is pushed.
    """

    at: datetime
    login: str
    repository: str
    number: int | None = None
    label: str | None = None
    is_removal: bool = False
    commit: str | None = None


class PollCursor(Record):
    """The progress of reading one repository. since: time from which events are read next, by GitHub's clock.

    seen:    fingerprints of the events since then that have been taken already.
    skipped: number of events that were too old when they were read.
    """

    since: datetime
    seen: tuple[str, ...] = ()
    skipped: int = 0


class WebhookSourceStatus(Record):
    """The observed state of a webhook source.

    url:               receives deliveries.
    deliveries:        the number of accepted ones.
    recent_deliveries: the latest ones, in order.
    thread_requests:   the requests from its threads that are not answered yet, in order.
    answered_requests: ids of the latest ones that are.
    own_writes:        the latest writes of the engine, whose events start no agent.
    login:             the account of the source's credentials on GitHub, which people mention.
    event_starts:      by issue or pull request, such as `owner/repo#7`, the jobs that events have started in the last
                       hour: each the seconds since 1970, a colon, and the start of the event's fingerprint.
    last_polled_at, next_poll_at: times of readings in the mode `poll`.
    rate_remaining:    requests that GitHub allows until the end of its hour.
    polled:            by `owner/repo`, how far each repository is read.
    """

    url: str | None = None
    conditions: tuple[Condition, ...] = ()
    last_delivery_at: datetime | None = None
    deliveries: int = 0
    recent_deliveries: tuple[DeliveryRecord, ...] = ()
    thread_requests: tuple[ThreadRequest, ...] = ()
    answered_requests: tuple[str, ...] = ()
    own_writes: tuple[OwnWrite, ...] = ()
    login: str | None = None
    event_starts: dict[str, tuple[str, ...]] = {}
    last_polled_at: datetime | None = None
    next_poll_at: datetime | None = None
    rate_remaining: int | None = None
    polled: dict[str, PollCursor] = {}

    def refused_since(self, time: datetime) -> Sequence[DeliveryRecord]:
        """Return the recent deliveries that were refused, from a time on."""
        return [record for record in self.recent_deliveries if record.outcome == REFUSED and record.at >= time]


class WebhookSource(Resource):
    """A sender of signed events."""

    spec: WebhookSourceSpec
    status: WebhookSourceStatus = WebhookSourceStatus()

    @property
    def full_queue(self) -> str | None:
        """Why no further job of the source may wait, as the controller has reported it; None if it may.

        A receiver on Kubernetes, which may not read jobs, has no other way to know.
        """
        conditions = self.status.conditions
        return next((each.message for each in conditions if each.type == ACCEPTING and each.status == "False"), None)


def new_delivery_id(at: datetime) -> str:
    """Return an id that sorts by time: 14 hex digits of microseconds since 1970, and 6 random ones."""
    return f"{_microseconds(at):014x}{secrets.token_hex(3)}"


def id_of_delivery(record: DeliveryRecord) -> str:
    """Return the id of a record; for one without an id, an equally ordered one."""
    return record.id or f"{_microseconds(record.at):014x}000000"


def _microseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


def payload_name(delivery_id: str) -> str:
    """Return the name of the ConfigMap that stores the payload of a delivery."""
    return f"delivery-payload-{delivery_id}"


def own_secret_name(source_name: str) -> str:
    """Return the name of the Secret that stores a source's own signing secret, given by value instead of by name."""
    return f"{source_name}.webhook-secret"
