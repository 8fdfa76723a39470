"""Redelivery of failed deliveries, by an in-memory GitHub in virtual time."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.github.client.app import HookDelivery
from labrats.github.redelivery import (
    CHECK_SECONDS,
    GITHUB_RETENTION,
    MAX_ATTEMPTS,
    Redelivery,
    missed_among,
)
from labrats.index.catalog import Catalog
from labrats.model.condition import Condition, condition_factory
from labrats.model.core_resources import Secret
from labrats.model.errors import GiveUp, RetryLater
from labrats.model.record import Metadata
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec, WebhookSourceStatus
from tests.fakes.clock import NOON, FakeClock, VirtualTimeLoop
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background

APP = {"appId": "4711", "privateKey": "test-key-of-an-app"}
OURS = "https://labrats.example/webhooks/github"


class Hook:
    """The webhook of an App.

    works:   whether its deliveries arrive.
    is_slow: whether a requested redelivery is not sent yet.
    error:   raised by calls, if set.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.url, self.works, self.is_slow = clock, OURS, True, False
        self.error: Exception | None = None
        self.sent: list[HookDelivery] = []
        self.requested: list[int] = []
        self.checks: list[datetime] = []

    def send(self, guid: str, *, ago: timedelta = timedelta(), arrives: bool | None = None) -> None:
        status = "OK" if (self.works if arrives is None else arrives) else "failed to connect to host"
        is_again = any(each.guid == guid for each in self.sent)
        self.sent.append(HookDelivery(len(self.sent) + 1, guid, self.clock.now() - ago, status, is_again))

    async def hook_url(self, credentials: Mapping[str, str]) -> str:
        assert credentials == APP
        if self.error:
            raise self.error
        return self.url

    async def deliveries(self, credentials: Mapping[str, str], since: datetime) -> Sequence[HookDelivery]:
        self.checks.append(since)
        return [each for each in reversed(self.sent) if each.delivered_at >= since]

    async def deliver_again(self, credentials: Mapping[str, str], delivery_id: int) -> None:
        (delivery,) = (each for each in self.sent if each.id == delivery_id)
        if delivery.guid == "gone":
            raise GiveUp("workspace", "no such delivery")
        self.requested.append(delivery_id)
        if not self.is_slow:
            self.send(delivery.guid)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hook(clock: FakeClock) -> Hook:
    return Hook(clock)


@pytest.fixture
async def store(clock: FakeClock, hook: Hook) -> AsyncIterator[MemoryStore]:
    """The store of an engine that was down and runs again."""
    store, catalog = MemoryStore(clock), Catalog()
    await store.create(Secret(metadata=Metadata(name="app"), data=APP))
    async with run_in_background(catalog.follow(store), Redelivery(store, catalog, hook, clock).run()):
        yield store


async def add_source(store: MemoryStore, *, ready: bool = True, **fields: Any) -> None:
    status = WebhookSourceStatus(conditions=(condition_factory(NOON)("Ready", ready, "Test", ""),))
    spec = WebhookSourceSpec(**{"type": "github", "credentials_ref": "app"} | fields)
    await store.create(WebhookSource(metadata=Metadata(name="github"), spec=spec, status=status))


async def caught_up(store: MemoryStore) -> Condition | None:
    status = (await store.get(WebhookSource, "github")).status
    return next((each for each in status.conditions if each.type == "CaughtUp"), None)


async def reason(store: MemoryStore) -> str:
    condition = await caught_up(store)
    return condition.reason if condition else ""


async def test_failed_deliveries_are_requested_once_each_the_oldest_first(
    store: MemoryStore, hook: Hook, clock: FakeClock
) -> None:
    for number in (3, 1, 2):
        hook.send(f"missed-{number}", ago=timedelta(minutes=10 * number), arrives=False)
    hook.send("arrived", ago=timedelta(minutes=15))
    hook.send("sent again by hand", ago=timedelta(minutes=30), arrives=False)
    hook.send("sent again by hand", ago=timedelta(minutes=5))
    await add_source(store)
    await clock.advance(40)
    assert await reason(store) == "Redelivering"
    await clock.advance(3 * CHECK_SECONDS)
    assert [hook.sent[number - 1].guid for number in hook.requested] == ["missed-3", "missed-2", "missed-1"]
    assert await reason(store) == "NothingMissed"


async def test_a_delivery_that_keeps_failing_is_requested_with_backoff_and_then_given_up(
    store: MemoryStore, hook: Hook, clock: FakeClock
) -> None:
    hook.works = False
    hook.send("missed")
    await add_source(store)
    await clock.advance(CHECK_SECONDS)
    assert 1 <= len(hook.requested) <= 2
    await clock.advance(GITHUB_RETENTION.total_seconds() / 2)
    assert len(hook.sent) == MAX_ATTEMPTS
    assert await reason(store) == "Lost"
    await clock.advance(GITHUB_RETENTION.total_seconds())
    assert len(hook.sent) == MAX_ATTEMPTS
    assert await reason(store) == "NothingMissed"


async def test_a_requested_delivery_that_is_not_sent_yet_is_not_requested_again(
    store: MemoryStore, hook: Hook, clock: FakeClock
) -> None:
    hook.is_slow = True
    hook.send("missed", arrives=False)
    await add_source(store)
    await clock.advance(3 * CHECK_SECONDS)
    assert hook.requested == [1]
    assert await reason(store) == "Redelivering"
    hook.send("missed")
    await clock.advance(CHECK_SECONDS)
    assert await reason(store) == "NothingMissed"


async def test_an_outage_of_hours_while_the_engine_runs_loses_no_delivery(
    store: MemoryStore, hook: Hook, clock: FakeClock
) -> None:
    await add_source(store)
    await clock.advance(CHECK_SECONDS)
    hook.works = False
    for number in range(20):
        hook.send(f"missed-{number}")
        await clock.advance(900)
    hook.works = True
    await clock.advance(12 * 3600)
    arrived = [each.guid for each in hook.sent if each.arrived]
    assert sorted(arrived) == sorted(f"missed-{number}" for number in range(20))
    assert await reason(store) == "NothingMissed"


async def test_the_first_check_covers_all_that_github_lists_and_later_ones_only_an_hour(
    store: MemoryStore, hook: Hook, clock: FakeClock
) -> None:
    hook.send("too old", ago=GITHUB_RETENTION + timedelta(minutes=1), arrives=False)
    await add_source(store)
    await clock.advance(3 * CHECK_SECONDS)
    assert hook.requested == []
    first, *later = hook.checks
    assert clock.now() - first >= GITHUB_RETENTION
    assert later
    assert all(clock.now() - since < timedelta(hours=1) for since in later)


@pytest.mark.parametrize(
    "fields",
    [{"type": "generic"}, {"enabled": False}, {"credentials_ref": None}, {"credentials_ref": "missing"}],
)
async def test_a_source_without_an_app_is_not_checked(
    store: MemoryStore, hook: Hook, clock: FakeClock, fields: dict[str, Any]
) -> None:
    await add_source(store, **fields)
    await clock.advance(2 * CHECK_SECONDS)
    assert hook.checks == []
    assert await caught_up(store) is None


async def test_the_condition_is_removed_with_the_credentials(store: MemoryStore, hook: Hook, clock: FakeClock) -> None:
    await add_source(store)
    await clock.advance(CHECK_SECONDS)
    assert await reason(store) == "NothingMissed"
    source = await store.get(WebhookSource, "github")
    await store.update(replace(source, spec=replace(source.spec, credentials_ref=None)))
    await clock.advance(CHECK_SECONDS)
    assert await caught_up(store) is None


async def test_a_source_that_is_not_ready_is_not_checked(store: MemoryStore, hook: Hook, clock: FakeClock) -> None:
    hook.send("missed", arrives=False)
    await add_source(store, ready=False)
    await clock.advance(CHECK_SECONDS)
    assert hook.checks == []


async def test_deliveries_of_an_app_to_another_address_are_not_requested(
    store: MemoryStore, hook: Hook, clock: FakeClock
) -> None:
    hook.url = "https://other.example/hook?token=test-secret"
    hook.send("missed", arrives=False)
    await add_source(store)
    await clock.advance(CHECK_SECONDS)
    assert hook.requested == []
    condition = await caught_up(store)
    assert condition
    assert (condition.status, condition.reason) == ("Unknown", "Elsewhere")
    assert "other.example/hook" in condition.message
    assert "test-secret" not in condition.message


@pytest.mark.parametrize("url", [f"{OURS}/", "https://a.example/labrats/api/webhooks/github", "https://a.example/own"])
async def test_deliveries_to_any_address_of_the_source_are_requested(
    store: MemoryStore, hook: Hook, clock: FakeClock, url: str
) -> None:
    hook.url = url
    hook.send("missed", arrives=False)
    await add_source(store, path="/own")
    await clock.advance(CHECK_SECONDS)
    assert hook.requested == [1]


async def test_github_is_not_called_for_as_long_as_it_asks(store: MemoryStore, hook: Hook, clock: FakeClock) -> None:
    hook.error = RetryLater("GitHub does not do it now: it answers 429", delay_seconds=3000)
    hook.send("missed", arrives=False)
    await add_source(store)
    await clock.advance(60)
    assert await reason(store) == "Unreachable"
    hook.error = None
    await clock.advance(2800)
    assert hook.checks == []
    await clock.advance(300)
    assert hook.requested == [1]


async def test_refused_credentials_are_reported_and_tried_again(
    store: MemoryStore, hook: Hook, clock: FakeClock
) -> None:
    hook.error = GiveUp("workspace", "GitHub does not know the App by its id and key")
    await add_source(store)
    await clock.advance(60)
    condition = await caught_up(store)
    assert condition
    assert (condition.status, condition.reason) == ("False", "Refused")
    assert "does not know the App" in condition.message
    hook.error = None
    await clock.advance(2 * CHECK_SECONDS)
    assert await reason(store) == "NothingMissed"


async def test_a_delivery_that_cannot_be_requested_blocks_no_other(
    store: MemoryStore, hook: Hook, clock: FakeClock
) -> None:
    hook.send("gone", ago=timedelta(minutes=2), arrives=False)
    hook.send("missed", ago=timedelta(minutes=1), arrives=False)
    await add_source(store)
    await clock.advance(60)
    assert hook.requested == [2]


def test_a_requested_delivery_is_pending() -> None:
    missed = missed_among([HookDelivery(1, "a", NOON, "timed out"), HookDelivery(2, "b", NOON, "OK")], {1}, NOON)
    assert (missed.due, missed.pending, missed.lost, missed.since) == ([], 1, 0, NOON)


async def test_an_unexpected_error_of_one_source_ends_nothing(store: MemoryStore, hook: Hook, clock: FakeClock) -> None:
    hook.error = TypeError("a defect")
    await add_source(store)
    await clock.sleep(CHECK_SECONDS)
    hook.error = None
    hook.send("a", arrives=False)
    await clock.sleep(3 * CHECK_SECONDS)
    assert hook.requested
