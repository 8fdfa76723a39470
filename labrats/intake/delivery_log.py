"""The deliveries of webhook sources, written to their status at intervals."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from msgspec.structs import replace

from labrats.model.errors import Conflict, Invalid, NotFound, RetryLater
from labrats.model.record import encode
from labrats.model.webhook_source import REFUSED, DeliveryRecord, WebhookSource, WebhookSourceStatus
from labrats.ports import Clock, Store

log = structlog.get_logger()

WRITE_SECONDS: Final = 5.0
"""The least time between two writes of a status, so that many deliveries cause few writes."""

KEPT: Final = 100
"""Deliveries that the status of a source keeps."""

KEPT_REFUSED: Final = 20
"""Refused ones among them, so that unsigned requests do not crowd out real deliveries."""

KEPT_BYTES: Final = 24 * 1024
"""The most that all of them take up as JSON, because a status must stay small."""


class DeliveryLog:
    """Deliveries that have yet to be written. An engine that is killed loses those of the last seconds."""

    def __init__(self) -> None:
        self._records: dict[str, list[DeliveryRecord]] = {}
        self._counts: dict[str, int] = {}
        self._changed = asyncio.Event()

    def add(self, source: str, record: DeliveryRecord) -> None:
        """Record a delivery of `source`. It counts unless it was refused."""
        records = self._records.setdefault(source, [])
        records.append(record)
        if len(records) > 2 * KEPT:  # many deliveries between two writes
            self._records[source] = latest(records)
        self._counts[source] = self._counts.get(source, 0) + (record.outcome != REFUSED)
        self._changed.set()

    async def run(self, store: Store, clock: Clock) -> None:
        """Write the deliveries until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for source in list(self._records):
                await self._write(source, store)
            await clock.sleep(WRITE_SECONDS)

    async def _write(self, source: str, store: Store) -> None:
        records, count = self._records.pop(source), self._counts.pop(source)
        try:
            found = await store.get(WebhookSource, source)
            await store.update(replace(found, status=_with_deliveries(found.status, records, count)))
        except NotFound:
            return  # it was deleted
        except Invalid as error:  # the stored source has become invalid
            log.warning("deliveries not recorded", source=source, reason=str(error))
        except (Conflict, RetryLater) as error:
            log.info("deliveries not recorded yet", source=source, reason=str(error))
            self._records[source] = [*records, *self._records.get(source, ())]
            self._counts[source] = self._counts.get(source, 0) + count
            self._changed.set()


def latest(records: Sequence[DeliveryRecord]) -> list[DeliveryRecord]:
    """Return the last deliveries, in order: at most KEPT, of these at most KEPT_REFUSED refused ones, in KEPT_BYTES."""
    kept: list[DeliveryRecord] = []
    refused = size = 0
    for record in reversed(records):
        refused += record.outcome == REFUSED
        if record.outcome == REFUSED and refused > KEPT_REFUSED:
            continue
        size += len(encode(record))
        if len(kept) == KEPT or size > KEPT_BYTES:
            break
        kept.append(record)
    return kept[::-1]


def _with_deliveries(status: WebhookSourceStatus, records: Sequence[DeliveryRecord], count: int) -> WebhookSourceStatus:
    accepted = [record.at for record in records if record.outcome != REFUSED]
    return replace(
        status,
        deliveries=status.deliveries + count,
        last_delivery_at=max(accepted, default=status.last_delivery_at),
        recent_deliveries=tuple(latest([*status.recent_deliveries, *records])),
    )
