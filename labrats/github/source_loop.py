"""The loop of the parts that keep webhook sources in order."""

from collections.abc import Awaitable, Callable

import structlog

from labrats.index.catalog import Catalog
from labrats.model.errors import LabratsError
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Clock

log = structlog.get_logger()


async def for_each_source(
    catalog: Catalog, clock: Clock, interval_seconds: float, work: Callable[[WebhookSource], Awaitable[None]], name: str
) -> None:
    """Do `work` for all webhook sources periodically, until cancelled. An error of one does not stop the others.

    name: of the work, for the log.
    """
    await catalog.synced.wait()  # before that the engine accepts no delivery
    while True:
        for source in catalog.webhook_sources:
            try:
                await work(source)
            except LabratsError as error:
                log.warning(f"{name} postponed", source=source.name, reason=str(error))
            except Exception:  # a bug that one source triggers must not end the engine
                log.exception(f"{name} postponed", source=source.name)
        await clock.sleep(interval_seconds)
