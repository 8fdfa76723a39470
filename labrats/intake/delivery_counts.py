"""Counts of the deliveries of webhook sources, written to their status at intervals."""

import asyncio
from datetime import datetime
from typing import Final

import structlog
from msgspec.structs import replace

from labrats.model.errors import Conflict, Invalid, NotFound, RetryLater
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Clock, Store

log = structlog.get_logger()

WRITE_SECONDS: Final = 5.0
"""The least time between two writes of a status, so that many deliveries cause few writes."""


class DeliveryCounts:
    """Counts that have yet to be written. An engine that is killed loses the counts of the last seconds."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._last: dict[str, datetime] = {}
        self._changed = asyncio.Event()

    def add(self, source: str, at: datetime) -> None:
        """Count an accepted delivery of `source`."""
        self._counts[source] = self._counts.get(source, 0) + 1
        self._last[source] = at
        self._changed.set()

    async def run(self, store: Store, clock: Clock) -> None:
        """Write the counts until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for source in list(self._counts):
                await self._write(source, store)
            await clock.sleep(WRITE_SECONDS)

    async def _write(self, source: str, store: Store) -> None:
        count, last = self._counts.pop(source), self._last.pop(source)
        try:
            found = await store.get(WebhookSource, source)
            total = found.status.deliveries + count
            await store.update(replace(found, status=replace(found.status, deliveries=total, last_delivery_at=last)))
        except NotFound:
            return  # it was deleted
        except Invalid as error:  # the stored source has become invalid
            log.warning("deliveries not counted", source=source, reason=str(error))
        except (Conflict, RetryLater) as error:
            log.info("deliveries not counted yet", source=source, reason=str(error))
            self._counts[source] = self._counts.get(source, 0) + count
            self._last.setdefault(source, last)
            self._changed.set()
