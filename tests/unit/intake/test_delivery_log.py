"""Deliveries are collected in memory, and written at intervals."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from labrats.intake.delivery_log import KEPT, KEPT_BYTES, KEPT_REFUSED, DeliveryLog
from labrats.model.errors import Invalid, LabratsError, Problem, RetryLater
from labrats.model.record import Metadata, encode
from labrats.model.webhook_source import (
    LONGEST_NOTE,
    REFUSED,
    STARTED,
    DeliveryRecord,
    WebhookSource,
    WebhookSourceSpec,
)
from tests.fakes.clock import FakeClock, VirtualTimeLoop
from tests.fakes.store import MemoryStore

SOURCE = WebhookSource(metadata=Metadata(name="github"), spec=WebhookSourceSpec(type="github"))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class CountedStore(MemoryStore):
    """A store that counts its updates, and fails the first `failures` of them."""

    writes = 0
    failures = 0
    trouble: LabratsError = RetryLater("the disk is full")

    async def update(self, resource: Any) -> Any:
        self.writes += 1
        if self.writes <= self.failures:
            raise self.trouble
        return await super().update(resource)


def a_delivery(clock: FakeClock, outcome: str = STARTED) -> DeliveryRecord:
    return DeliveryRecord(at=clock.now(), outcome=outcome)


@pytest.fixture
async def store(clock: FakeClock) -> CountedStore:
    store = CountedStore(clock)
    await store.create(SOURCE)
    return store


@pytest.fixture
async def deliveries(store: CountedStore, clock: FakeClock) -> AsyncIterator[DeliveryLog]:
    deliveries = DeliveryLog()
    running = asyncio.create_task(deliveries.run(store, clock))
    yield deliveries
    running.cancel()


async def test_counts_are_written_every_few_seconds_whatever_the_rate_of_deliveries(
    deliveries: DeliveryLog, store: CountedStore, clock: FakeClock
) -> None:
    for _ in range(200):
        deliveries.add("github", a_delivery(clock))
        await clock.advance(0.1)
    last = clock.now()
    await clock.advance(60)
    status = (await store.get(WebhookSource, "github")).status
    assert status.deliveries == 200
    assert status.last_delivery_at
    assert (last - status.last_delivery_at).total_seconds() < 0.2
    assert store.writes <= 5


async def test_a_count_is_written_again_after_a_failed_write(
    deliveries: DeliveryLog, store: CountedStore, clock: FakeClock
) -> None:
    store.failures = 2
    deliveries.add("github", a_delivery(clock))
    deliveries.add("gone", a_delivery(clock))
    await clock.advance(60)
    assert (await store.get(WebhookSource, "github")).status.deliveries == 1


async def test_counting_continues_after_an_invalid_source(
    deliveries: DeliveryLog, store: CountedStore, clock: FakeClock
) -> None:
    store.failures, store.trouble = 1, Invalid(Problem("spec.host", "is no host"))
    deliveries.add("github", a_delivery(clock))
    await clock.advance(60)
    deliveries.add("github", a_delivery(clock))
    await clock.advance(60)
    assert (await store.get(WebhookSource, "github")).status.deliveries == 1


async def test_refused_deliveries_are_not_counted_and_displace_no_others(
    deliveries: DeliveryLog, store: CountedStore, clock: FakeClock
) -> None:
    deliveries.add("github", a_delivery(clock))
    for _ in range(10 * KEPT):
        deliveries.add("github", a_delivery(clock, REFUSED))
        await clock.advance(0.1)
    await clock.advance(60)

    status = (await store.get(WebhookSource, "github")).status
    outcomes = [record.outcome for record in status.recent_deliveries]
    assert outcomes == [STARTED] + KEPT_REFUSED * [REFUSED]
    assert status.deliveries == 1


async def test_the_latest_deliveries_are_kept(deliveries: DeliveryLog, store: CountedStore, clock: FakeClock) -> None:
    for _ in range(2 * KEPT):
        deliveries.add("github", a_delivery(clock))
        await clock.advance(0.1)
    last = clock.now()
    await clock.advance(60)

    records = (await store.get(WebhookSource, "github")).status.recent_deliveries
    assert len(records) == KEPT
    assert (last - records[-1].at).total_seconds() < 0.2


async def test_records_with_the_longest_texts_take_up_little_room(
    deliveries: DeliveryLog, store: CountedStore, clock: FakeClock
) -> None:
    text = LONGEST_NOTE * "\U0001f41b"
    for number in range(KEPT):
        jobs = tuple(f"job-{number}-{place}" for place in range(10))
        record = DeliveryRecord(at=clock.now(), outcome=STARTED, event=text, repo=text, reason=text, jobs=jobs)
        deliveries.add("github", record)
    await clock.advance(60)

    records = (await store.get(WebhookSource, "github")).status.recent_deliveries
    assert 0.8 * KEPT_BYTES < len(encode(list(records))) < 1.1 * KEPT_BYTES
    assert records[-1].jobs[0] == f"job-{KEPT - 1}-0"
