"""Counts of deliveries are collected in memory, and written at intervals."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from labrats.intake.delivery_counts import DeliveryCounts
from labrats.model.errors import Invalid, LabratsError, Problem, RetryLater
from labrats.model.record import Metadata
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
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


@pytest.fixture
async def store(clock: FakeClock) -> CountedStore:
    store = CountedStore(clock)
    await store.create(SOURCE)
    return store


@pytest.fixture
async def counts(store: CountedStore, clock: FakeClock) -> AsyncIterator[DeliveryCounts]:
    counts = DeliveryCounts()
    running = asyncio.create_task(counts.run(store, clock))
    yield counts
    running.cancel()


async def test_counts_are_written_every_few_seconds_whatever_the_rate_of_deliveries(
    counts: DeliveryCounts, store: CountedStore, clock: FakeClock
) -> None:
    for _ in range(200):
        counts.add("github", clock.now())
        await clock.advance(0.1)
    last = clock.now()
    await clock.advance(60)
    status = (await store.get(WebhookSource, "github")).status
    assert status.deliveries == 200
    assert status.last_delivery_at
    assert (last - status.last_delivery_at).total_seconds() < 0.2
    assert store.writes <= 5


async def test_a_count_is_written_again_after_a_failed_write(
    counts: DeliveryCounts, store: CountedStore, clock: FakeClock
) -> None:
    store.failures = 2
    counts.add("github", clock.now())
    counts.add("gone", clock.now())
    await clock.advance(60)
    assert (await store.get(WebhookSource, "github")).status.deliveries == 1


async def test_counting_continues_after_an_invalid_source(
    counts: DeliveryCounts, store: CountedStore, clock: FakeClock
) -> None:
    store.failures, store.trouble = 1, Invalid(Problem("spec.host", "is no host"))
    counts.add("github", clock.now())
    await clock.advance(60)
    counts.add("github", clock.now())
    await clock.advance(60)
    assert (await store.get(WebhookSource, "github")).status.deliveries == 1
