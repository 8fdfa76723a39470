"""Deliveries are collected in memory, and written at intervals."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from labrats.intake.delivery_log import KEPT, KEPT_BYTES, KEPT_REFUSED, PAYLOAD_BYTES, PAYLOADS_BYTES, DeliveryLog
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import Invalid, LabratsError, Problem, RetryLater
from labrats.model.record import Metadata, encode
from labrats.model.webhook_source import (
    LONGEST_NOTE,
    REFUSED,
    STARTED,
    DeliveryRecord,
    WebhookSource,
    WebhookSourceSpec,
    id_of_delivery,
    payload_name,
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
    deliveries = DeliveryLog(stores_payloads=True)
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


async def payloads_in(store: MemoryStore) -> dict[str, str]:
    return {each.name: each.data["payload"] for each in await store.list(ConfigMap)}


async def test_payloads_of_the_latest_deliveries_are_stored_within_bounds(
    deliveries: DeliveryLog, store: CountedStore, clock: FakeClock
) -> None:
    for number in range(40):
        deliveries.add("github", a_delivery(clock), str(number).encode().ljust(PAYLOAD_BYTES))
        await clock.advance(1)
    deliveries.add("github", a_delivery(clock), b"x" * (PAYLOAD_BYTES + 1))
    await clock.advance(60)

    room = PAYLOADS_BYTES // PAYLOAD_BYTES
    kept = (await store.get(WebhookSource, "github")).status.recent_deliveries
    assert [each.payload_bytes for each in kept] == (40 - room) * [0] + room * [PAYLOAD_BYTES] + [0]
    stored = {payload_name(each.id): number for number, each in enumerate(kept) if each.payload_bytes}
    assert {name: int(text) for name, text in (await payloads_in(store)).items()} == stored


async def test_ids_of_deliveries_keep_their_order_also_at_the_same_time(
    deliveries: DeliveryLog, store: CountedStore, clock: FakeClock
) -> None:
    for number in range(50):
        deliveries.add("github", DeliveryRecord(at=clock.now(), outcome=STARTED, event=str(number)))
    await clock.advance(60)
    kept = (await store.get(WebhookSource, "github")).status.recent_deliveries
    assert [each.event for each in sorted(kept, key=id_of_delivery)] == [str(number) for number in range(50)]


async def test_payloads_that_arrive_at_once_are_bounded_in_memory(
    deliveries: DeliveryLog, store: CountedStore, clock: FakeClock
) -> None:
    for _ in range(10 * PAYLOADS_BYTES // PAYLOAD_BYTES):
        deliveries.add("github", a_delivery(clock), b"x" * PAYLOAD_BYTES)
        pending = deliveries._pending["github"]
        assert sum(map(len, pending.payloads.values())) <= 2 * PAYLOADS_BYTES
    await clock.advance(60)
    assert len(await payloads_in(store)) == PAYLOADS_BYTES // PAYLOAD_BYTES
    assert (await store.get(WebhookSource, "github")).status.deliveries == 320


async def test_payload_is_stored_once_after_failed_writes_and_deleted_with_the_source(
    deliveries: DeliveryLog, store: CountedStore, clock: FakeClock
) -> None:
    store.failures = 2
    deliveries.add("github", a_delivery(clock), b"{}")
    await clock.advance(60)
    assert list((await payloads_in(store)).values()) == ["{}"]
    await store.delete(WebhookSource, "github")
    assert await payloads_in(store) == {}


async def test_engine_on_a_cluster_stores_no_payload(store: CountedStore, clock: FakeClock) -> None:
    deliveries = DeliveryLog()
    running = asyncio.create_task(deliveries.run(store, clock))
    deliveries.add("github", a_delivery(clock), b"{}")
    await clock.advance(60)
    running.cancel()
    assert await payloads_in(store) == {}
    (record,) = (await store.get(WebhookSource, "github")).status.recent_deliveries
    assert record.payload_bytes == 0
