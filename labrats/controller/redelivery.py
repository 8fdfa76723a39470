"""Has GitHub deliver again what it could not deliver while the engine was away: it does not do so by itself."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog
from msgspec.structs import replace

from labrats.index.catalog import Catalog
from labrats.model.condition import Condition, condition_factory, with_condition
from labrats.model.core_resources import Secret
from labrats.model.errors import GiveUp, NotFound, RetryLater
from labrats.model.webhook_source import APP_ID, GITHUB, PRIVATE_KEY, TOKEN, WebhookSource
from labrats.net.github import HookDelivery
from labrats.ports import Clock, Store, compare_and_set

log = structlog.get_logger()

LOOK_SECONDS: Final = 300.0
"""How often GitHub is asked what has not arrived."""

TURN_SECONDS: Final = 30.0
"""How soon a source that is new, or has new credentials, has its turn; and the shortest wait after trouble."""

PACE_SECONDS: Final = 1.0
"""Between two requests to deliver again: GitHub asks for that much."""

KEPT: Final = timedelta(days=3)
"""For how long GitHub keeps a delivery, and delivers it again."""

OVERLAP: Final = timedelta(minutes=15)
"""How far a look goes back behind the last one: what was under way then has ended since."""

MOST_ATTEMPTS: Final = 10
"""What has failed so often, over most of a day, has another cause than an engine that was away."""

CAUGHT_UP: Final = "CaughtUp"
SHARED_PATH: Final = "/api/webhooks/github"


class AppHooks(Protocol):
    """The webhooks of GitHub Apps, as GitHub (labrats/net/github.py) has them. What it raises is said there."""

    async def hook_url(self, credentials: Mapping[str, str]) -> str: ...

    async def deliveries(self, credentials: Mapping[str, str], since: datetime) -> Sequence[HookDelivery]: ...

    async def deliver_again(self, credentials: Mapping[str, str], delivery_id: int) -> None: ...


@dataclass(frozen=True)
class Missed:
    """What has not arrived. again: what to ask for now, the oldest first. awaited: what was asked for, or will be.
    lost: what failed too often. since: when the first of all these was sent; None where there are none.
    """

    again: Sequence[HookDelivery]
    awaited: int
    lost: int
    since: datetime | None


def missed_among(deliveries: Iterable[HookDelivery], asked: set[int], now: datetime) -> Missed:
    """asked: the ids of the attempts after which another one was asked for."""
    by_guid: dict[str, list[HookDelivery]] = {}
    for delivery in sorted(deliveries, key=lambda each: (each.delivered_at, each.id)):
        by_guid.setdefault(delivery.guid, []).append(delivery)
    # Where the first attempt is not among them it is too old, and how often it has failed is not known any more.
    whole = [attempts for attempts in by_guid.values() if not attempts[0].redelivery]
    failed = [attempts for attempts in whole if not any(each.arrived for each in attempts)]
    hopeful = [attempts for attempts in failed if len(attempts) < MOST_ATTEMPTS]
    due = [attempts[-1] for attempts in hopeful if now >= attempts[-1].delivered_at + _pause_after(len(attempts))]
    again = [attempt for attempt in due if attempt.id not in asked]
    return Missed(
        again=again,
        awaited=len(hopeful) - len(again),
        lost=len(failed) - len(hopeful),
        since=min((attempts[0].delivered_at for attempts in failed), default=None),
    )


def _pause_after(attempts: int) -> timedelta:
    """The first one failed while the engine was away. What fails when it is back may take longer to pass."""
    return timedelta(seconds=LOOK_SECONDS * 2 ** (attempts - 2) if attempts > 1 else 0)


@dataclass
class _App:
    """What is remembered of one source's App while this engine leads. due: when its turn is. since: how far to look."""

    credentials_ref: str
    due: datetime
    since: datetime


class Redelivery:
    """For the engine that drives jobs. A source's condition `CaughtUp` says how it stands."""

    def __init__(self, store: Store, catalog: Catalog, hooks: AppHooks, clock: Clock) -> None:
        self._store, self._catalog, self._hooks, self._clock = store, catalog, hooks, clock
        self._apps: dict[str, _App] = {}
        self._asked: set[int] = set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._catalog.synced.wait()  # before that no delivery could be taken
        while True:
            for source in self._catalog.webhook_sources:
                try:
                    await self._take_turn(source)
                except RetryLater as error:
                    log.warning("missed deliveries will be looked for later", source=source.name, reason=str(error))
            await self._clock.sleep(TURN_SECONDS)

    async def _take_turn(self, source: WebhookSource) -> None:
        credentials = await self._credentials(source)
        if credentials is None:
            self._apps.pop(source.name, None)
            await self._tell(source, None)
        elif _is_ready(source):
            app = self._app(source)
            if app.due <= self._clock.now():
                await self._tell(source, await self._catch_up(source, app, credentials))

    async def _credentials(self, source: WebhookSource) -> Mapping[str, str] | None:
        """Those of the source's App; None where there is no App, or nothing is to arrive."""
        spec = source.spec
        if spec.type != GITHUB or not spec.enabled or spec.credentials_ref is None:
            return None
        try:
            data = (await self._store.get(Secret, spec.credentials_ref)).data
        except NotFound:
            return None
        is_apps = APP_ID in data and PRIVATE_KEY in data and not data.get(TOKEN, "").strip()
        return data if is_apps else None

    def _app(self, source: WebhookSource) -> _App:
        """What is remembered; for one that is new, that all of what GitHub keeps is to be looked at now."""
        known, now = self._apps.get(source.name), self._clock.now()
        if known is None or known.credentials_ref != source.spec.credentials_ref:
            known = self._apps[source.name] = _App(source.spec.credentials_ref or "", now, now - KEPT)
        return known

    async def _catch_up(self, source: WebhookSource, app: _App, credentials: Mapping[str, str]) -> Condition:
        """Have what was missed delivered again, and say what is to be said of the source."""
        began = self._clock.now()
        told = condition_factory(began.replace(microsecond=0))
        app.due = began + timedelta(seconds=LOOK_SECONDS)
        try:
            if not _receives_at(source, url := await self._hooks.hook_url(credentials)):
                said = told(CAUGHT_UP, False, "Elsewhere", f"the App's webhook delivers elsewhere, to {_place(url)}")
                return replace(said, status="Unknown")
            missed = missed_among(await self._hooks.deliveries(credentials, app.since), self._asked, began)
            for delivery in missed.again:
                await self._ask_again(source, credentials, delivery)
        except RetryLater as error:
            app.due = self._clock.now() + timedelta(seconds=max(error.delay_seconds, TURN_SECONDS))
            return told(CAUGHT_UP, False, "Unreachable", f"what was missed is not known: {error}")
        except GiveUp as error:
            return told(CAUGHT_UP, False, "Refused", f"what was missed is not known: {error}")
        app.since = max(min(missed.since or began, began - OVERLAP), began - KEPT)
        if missed.again:  # to see what becomes of it
            app.due = self._clock.now() + timedelta(seconds=TURN_SECONDS)
        if waiting := len(missed.again) + missed.awaited:
            return told(CAUGHT_UP, False, "Redelivering", f"{waiting} that failed are delivered again")
        if missed.lost:
            message = f"{missed.lost} failed {MOST_ATTEMPTS} times: GitHub shows why, beside the App's deliveries"
            return told(CAUGHT_UP, False, "Lost", message)
        return told(CAUGHT_UP, True, "NothingMissed", "all that GitHub has sent has arrived")

    async def _ask_again(self, source: WebhookSource, credentials: Mapping[str, str], delivery: HookDelivery) -> None:
        try:
            await self._hooks.deliver_again(credentials, delivery.id)
        except GiveUp as error:  # of one delivery: the others may be
            log.warning("a delivery is lost", source=source.name, delivery=delivery.guid, reason=str(error))
        else:
            log.info("a delivery was missed, and is sent again", source=source.name, delivery=delivery.guid)
        self._asked.add(delivery.id)
        await self._clock.sleep(PACE_SECONDS)

    async def _tell(self, source: WebhookSource, condition: Condition | None) -> None:
        """Store the condition on the source; without one, remove the stored condition."""

        def changed(found: WebhookSource) -> WebhookSource:
            others = tuple(each for each in found.status.conditions if each.type != CAUGHT_UP)
            conditions = with_condition(found.status.conditions, condition) if condition else others
            conditions = tuple(sorted(conditions, key=lambda each: each.type))
            if conditions == found.status.conditions:
                return found
            return replace(found, status=replace(found.status, conditions=conditions))

        with suppress(NotFound):
            await compare_and_set(self._store, lambda: self._store.get(WebhookSource, source.name), changed)


def _is_ready(source: WebhookSource) -> bool:
    """Whether what is asked for would be taken."""
    return any((each.type, each.status) == ("Ready", "True") for each in source.status.conditions)


def _receives_at(source: WebhookSource, url: str) -> bool:
    """Whether what is sent there comes to this source. A proxy may put something before the path."""
    own = {SHARED_PATH, f"/webhooks/{source.name}", source.spec.path or SHARED_PATH}
    return urlsplit(url).path.rstrip("/").endswith(tuple(own))


def _place(url: str) -> str:
    """Without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.hostname}{parts.path}"
