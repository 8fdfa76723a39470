"""How many deliveries webhook sources have had: counted here, and written to their status now and then."""

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
"""A status is written no more often: however many deliveries come, the store has little to do with counting them."""


class DeliveryCounts:
    """What has yet to be written. An engine that is killed loses the counts of the last seconds, and no delivery."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._last: dict[str, datetime] = {}
        self._news = asyncio.Event()

    def note(self, source: str, at: datetime) -> None:
        """A delivery of that source was accepted."""
        self._counts[source] = self._counts.get(source, 0) + 1
        self._last[source] = at
        self._news.set()

    async def run(self, store: Store, clock: Clock) -> None:
        """Write what is counted, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
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
            return  # nobody asks any more
        except Invalid as error:  # somebody has written what the store takes no more
            log.warning("the deliveries of a source cannot be counted", source=source, reason=str(error))
        except (Conflict, RetryLater) as error:
            log.info("deliveries will be counted later", source=source, reason=str(error))
            self._counts[source] = self._counts.get(source, 0) + count
            self._last.setdefault(source, last)
            self._news.set()
