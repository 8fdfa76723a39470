"""Redelivery of GitHub's webhooks: requests the deliveries that failed while the engine was down."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog
from msgspec.structs import replace

from labrats.github.client.app import HookDelivery
from labrats.github.source_loop import for_each_source
from labrats.index.catalog import Catalog
from labrats.index.source_conditions import app_credentials, store_condition
from labrats.model.condition import Condition, condition_factory
from labrats.model.errors import GiveUp, RetryLater
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Clock, Store

log = structlog.get_logger()

CHECK_SECONDS: Final = 300.0
"""Interval of the checks of one App for failed deliveries."""

PASS_SECONDS: Final = 30.0
"""Interval of the passes over all sources. Also the shortest delay after an error."""

REQUEST_INTERVAL_SECONDS: Final = 1.0
"""Pause between two redelivery requests, as GitHub asks for."""

GITHUB_RETENTION: Final = timedelta(days=3)
"""Age up to which GitHub lists deliveries and redelivers them."""

OVERLAP: Final = timedelta(minutes=15)
"""Overlap of two checks. A delivery that was in progress during the last check has ended since."""

MAX_ATTEMPTS: Final = 10
"""Attempts of a delivery, spread over most of a day. If all fail, the cause is not an engine that was down."""

CAUGHT_UP: Final = "CaughtUp"
SHARED_PATH: Final = "/api/webhooks/github"


class AppHooks(Protocol):
    """The part of labrats/github/client/app.py that manages the webhooks of Apps. Errors are documented there."""

    async def hook_url(self, credentials: Mapping[str, str]) -> str: ...

    async def deliveries(self, credentials: Mapping[str, str], since: datetime) -> Sequence[HookDelivery]: ...

    async def deliver_again(self, credentials: Mapping[str, str], delivery_id: int) -> None: ...


@dataclass(frozen=True)
class MissedDeliveries:
    """Deliveries that have not arrived.

    due:     the last attempt of each delivery to request now, the oldest first.
    pending: number of deliveries that were requested, or will be.
    lost:    number of deliveries that failed too often.
    since:   time of the oldest of all these; None if there are none.
    """

    due: Sequence[HookDelivery]
    pending: int
    lost: int
    since: datetime | None


def missed_among(deliveries: Iterable[HookDelivery], requested: set[int], now: datetime) -> MissedDeliveries:
    """Return the deliveries that have not arrived.

    requested: ids of the attempts after which a redelivery was requested.
    """
    by_guid: dict[str, list[HookDelivery]] = {}
    for delivery in sorted(deliveries, key=lambda each: (each.delivered_at, each.id)):
        by_guid.setdefault(delivery.guid, []).append(delivery)
    # A delivery whose first attempt is too old to be listed is skipped: its number of failures is unknown.
    complete = [attempts for attempts in by_guid.values() if not attempts[0].redelivery]
    failed = [attempts for attempts in complete if not any(each.arrived for each in attempts)]
    retryable = [attempts for attempts in failed if len(attempts) < MAX_ATTEMPTS]
    due = [
        attempts[-1]
        for attempts in retryable
        if now >= attempts[-1].delivered_at + _backoff_after(len(attempts)) and attempts[-1].id not in requested
    ]
    return MissedDeliveries(
        due=due,
        pending=len(retryable) - len(due),
        lost=len(failed) - len(retryable),
        since=min((attempts[0].delivered_at for attempts in failed), default=None),
    )


def _backoff_after(attempts: int) -> timedelta:
    """Return the delay after the latest attempt: none after the first, which failed because the engine was down."""
    return timedelta(seconds=CHECK_SECONDS * 2 ** (attempts - 2) if attempts > 1 else 0)


@dataclass
class _App:
    """State of one source's App while this engine leads. due: time of its next check. since: age limit of the check."""

    credentials_ref: str
    due: datetime
    since: datetime


class Redelivery:
    """Requests failed deliveries again, and reports progress in the condition `CaughtUp` of the source."""

    def __init__(self, store: Store, catalog: Catalog, hooks: AppHooks, clock: Clock) -> None:
        self._store, self._catalog, self._hooks, self._clock = store, catalog, hooks, clock
        self._apps: dict[str, _App] = {}
        self._requested: set[int] = set()

    async def run(self) -> None:
        """Check all sources periodically, until cancelled."""
        await for_each_source(self._catalog, self._clock, PASS_SECONDS, self._review, "redelivery")

    async def _review(self, source: WebhookSource) -> None:
        credentials = None if source.spec.polls else await app_credentials(self._store, source)
        if credentials is None:
            self._apps.pop(source.name, None)
            await store_condition(self._store, source, CAUGHT_UP, None)
        elif _is_ready(source):
            app = self._app(source)
            if app.due <= self._clock.now():
                await store_condition(self._store, source, CAUGHT_UP, await self._catch_up(source, app, credentials))

    def _app(self, source: WebhookSource) -> _App:
        """Return the state of the App. A new App is due now, for all deliveries that GitHub still lists."""
        known, now = self._apps.get(source.name), self._clock.now()
        if known is None or known.credentials_ref != source.spec.credentials_ref:
            known = self._apps[source.name] = _App(source.spec.credentials_ref or "", now, now - GITHUB_RETENTION)
        return known

    async def _catch_up(self, source: WebhookSource, app: _App, credentials: Mapping[str, str]) -> Condition:
        """Request the missed deliveries, and return the condition of the source."""
        began = self._clock.now()
        report = condition_factory(began.replace(microsecond=0))
        app.due = began + timedelta(seconds=CHECK_SECONDS)
        try:
            if not _receives_at(source, url := await self._hooks.hook_url(credentials)):
                message = f"the webhook of the App has another address: {_without_secrets(url)}"
                return replace(report(CAUGHT_UP, False, "Elsewhere", message), status="Unknown")
            missed = missed_among(await self._hooks.deliveries(credentials, app.since), self._requested, began)
            for delivery in missed.due:
                await self._request(source, credentials, delivery)
        except RetryLater as error:
            app.due = self._clock.now() + timedelta(seconds=max(error.delay_seconds, PASS_SECONDS))
            return report(CAUGHT_UP, False, "Unreachable", f"missed deliveries are unknown: {error}")
        except GiveUp as error:
            return report(CAUGHT_UP, False, "Refused", f"missed deliveries are unknown: {error}")
        app.since = max(min(missed.since or began, began - OVERLAP), began - GITHUB_RETENTION)
        if missed.due:  # check soon whether the redeliveries have arrived
            app.due = self._clock.now() + timedelta(seconds=PASS_SECONDS)
        if waiting := len(missed.due) + missed.pending:
            return report(CAUGHT_UP, False, "Redelivering", f"failed deliveries being redelivered: {waiting}")
        if missed.lost:
            message = (
                f"deliveries lost after {MAX_ATTEMPTS} attempts: {missed.lost}; GitHub lists them in the App's settings"
            )
            return report(CAUGHT_UP, False, "Lost", message)
        return report(CAUGHT_UP, True, "NothingMissed", "all deliveries from GitHub have arrived")

    async def _request(self, source: WebhookSource, credentials: Mapping[str, str], delivery: HookDelivery) -> None:
        try:
            await self._hooks.deliver_again(credentials, delivery.id)
        except GiveUp as error:  # the other deliveries are requested nevertheless
            log.warning("delivery lost", source=source.name, delivery=delivery.guid, reason=str(error))
        else:
            log.info("redelivery requested", source=source.name, delivery=delivery.guid)
        self._requested.add(delivery.id)
        await self._clock.sleep(REQUEST_INTERVAL_SECONDS)


def _is_ready(source: WebhookSource) -> bool:
    """Return whether the source accepts deliveries."""
    return any((each.type, each.status) == ("Ready", "True") for each in source.status.conditions)


def _receives_at(source: WebhookSource, url: str) -> bool:
    """Return whether the source receives deliveries to the address. A proxy may have a prefix before the path."""
    own_paths = {SHARED_PATH, f"/webhooks/{source.name}", source.spec.path or SHARED_PATH}
    return urlsplit(url).path.rstrip("/").endswith(tuple(own_paths))


def _without_secrets(url: str) -> str:
    """Return the host and path of the address: the other parts may be secret."""
    parts = urlsplit(url)
    return f"{parts.hostname}{parts.path}"
