"""The deliveries of webhook sources, written to their status at intervals, and the payloads of the latest ones."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from msgspec.structs import replace

from labrats.model.core_resources import ConfigMap
from labrats.model.errors import Conflict, Invalid, NotFound, RetryLater
from labrats.model.record import Metadata, encode
from labrats.model.webhook_source import (
    REFUSED,
    DeliveryRecord,
    WebhookSource,
    WebhookSourceStatus,
    new_delivery_id,
    payload_name,
)
from labrats.ports import Clock, Store

log = structlog.get_logger()

WRITE_SECONDS: Final = 5.0
"""The least time between two writes of a status, so that many deliveries cause few writes."""

KEPT: Final = 200
"""Deliveries that the status of a source keeps."""

KEPT_REFUSED: Final = 20
"""Refused ones among them, so that unsigned requests do not crowd out real deliveries."""

KEPT_BYTES: Final = 48 * 1024
"""The most that all of them take up as JSON, because a status must stay small."""

PAYLOAD_BYTES: Final = 256 * 1024
"""The largest payload that is stored."""

PAYLOADS_BYTES: Final = 8 * 1024 * 1024
"""The most that the stored payloads of one source take up. The latest ones are kept."""

PAYLOAD_KEY: Final = "payload"


@dataclass
class _Pending:
    """Deliveries of a source that have yet to be written. payloads: by the delivery's id. count: of accepted ones."""

    records: list[DeliveryRecord] = field(default_factory=list)
    payloads: dict[str, bytes] = field(default_factory=dict)
    count: int = 0

    def add(self, record: DeliveryRecord, payload: bytes) -> None:
        self.records.append(replace(record, payload_bytes=len(payload)))
        self.count += record.outcome != REFUSED
        if payload:
            self.payloads[record.id] = payload
        if len(self.records) > 2 * KEPT or sum(map(len, self.payloads.values())) > 2 * PAYLOADS_BYTES:
            self.records = latest(self.records)  # many deliveries between two writes
            stored = ids_with_payload(self.records)
            self.payloads = {key: each for key, each in self.payloads.items() if key in stored}

    def prepend(self, earlier: "_Pending") -> None:
        self.records[:0] = earlier.records
        self.payloads |= earlier.payloads
        self.count += earlier.count


class DeliveryLog:
    """Deliveries that have yet to be written. An engine that is killed loses those of the last seconds.

    stores_payloads: false on a cluster, whose receivers are open to the world and may not delete old payloads.
    """

    def __init__(self, *, stores_payloads: bool = False) -> None:
        self.stores_payloads = stores_payloads
        self._pending: dict[str, _Pending] = {}
        self._changed = asyncio.Event()
        self._latest = datetime.fromtimestamp(0, UTC)

    def add(self, source: str, record: DeliveryRecord, payload: bytes = b"") -> None:
        """Record a delivery of `source`, and give it an id. It counts unless it was refused.

        payload: the JSON of its event. It is not stored if it has more than PAYLOAD_BYTES.
        """
        is_stored = self.stores_payloads and len(payload) <= PAYLOAD_BYTES
        self._latest = max(record.at, self._latest + timedelta(microseconds=1))  # two may come at the same time
        record = replace(record, id=new_delivery_id(self._latest))
        self._pending.setdefault(source, _Pending()).add(record, payload if is_stored else b"")
        self._changed.set()

    async def run(self, store: Store, clock: Clock) -> None:
        """Write the deliveries until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for source in list(self._pending):
                await self._write(source, store)
            await clock.sleep(WRITE_SECONDS)

    async def _write(self, name: str, store: Store) -> None:
        pending = self._pending.pop(name)
        try:
            source = await store.get(WebhookSource, name)
            status = _with_deliveries(source.status, pending)
            stored = ids_with_payload(status.recent_deliveries)
            await _store_payloads(store, source, {key: each for key, each in pending.payloads.items() if key in stored})
            await store.update(replace(source, status=status))
            await _delete_payloads(store, ids_with_payload(source.status.recent_deliveries) - stored)
        except NotFound:
            return  # it was deleted
        except Invalid as error:  # the stored source has become invalid
            log.warning("deliveries not recorded", source=name, reason=str(error))
        except (Conflict, RetryLater) as error:
            log.info("deliveries not recorded yet", source=name, reason=str(error))
            self._pending.setdefault(name, _Pending()).prepend(pending)
            self._changed.set()


async def _store_payloads(store: Store, source: WebhookSource, payloads: dict[str, bytes]) -> None:
    for delivery_id, payload in payloads.items():
        metadata = Metadata(name=payload_name(delivery_id), owner=source.as_owner())
        with suppress(Conflict):  # stored before the status could not be written
            await store.create(ConfigMap(metadata=metadata, data={PAYLOAD_KEY: payload.decode()}))


async def _delete_payloads(store: Store, delivery_ids: set[str]) -> None:
    """Delete payloads that the status no longer names. One that cannot be deleted now is deleted with its source."""
    for delivery_id in delivery_ids:
        try:
            await store.delete(ConfigMap, payload_name(delivery_id))
        except (NotFound, RetryLater) as error:
            log.info("payload not deleted", delivery=delivery_id, reason=str(error))


def latest(records: Sequence[DeliveryRecord]) -> list[DeliveryRecord]:
    """Return the last deliveries, in order: at most KEPT, of these at most KEPT_REFUSED refused ones, in KEPT_BYTES.

    Those whose payloads exceed PAYLOADS_BYTES in all are kept without a payload.
    """
    kept: list[DeliveryRecord] = []
    refused = size = payloads = 0
    for record in reversed(records):
        refused += record.outcome == REFUSED
        if record.outcome == REFUSED and refused > KEPT_REFUSED:
            continue
        size += len(encode(record))
        if len(kept) == KEPT or size > KEPT_BYTES:
            break
        payloads += record.payload_bytes
        kept.append(record if payloads <= PAYLOADS_BYTES else replace(record, payload_bytes=0))
    return kept[::-1]


def ids_with_payload(records: Sequence[DeliveryRecord]) -> set[str]:
    """Return the ids of the deliveries whose payload is stored."""
    return {record.id for record in records if record.payload_bytes}


def _with_deliveries(status: WebhookSourceStatus, pending: _Pending) -> WebhookSourceStatus:
    accepted = [record.at for record in pending.records if record.outcome != REFUSED]
    return replace(
        status,
        deliveries=status.deliveries + pending.count,
        last_delivery_at=max(accepted, default=status.last_delivery_at),
        recent_deliveries=tuple(latest([*status.recent_deliveries, *pending.records])),
    )
