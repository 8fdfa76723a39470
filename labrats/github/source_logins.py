"""The login of each webhook source on GitHub, by which receivers recognise a mention of it."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import structlog
from msgspec.structs import replace

from labrats.github.client.access import GitHubAccess, NoAccess
from labrats.index.catalog import Catalog
from labrats.model.errors import LabratsError, NotFound
from labrats.model.webhook_source import GITHUB, WebhookSource
from labrats.ports import Clock, Store, compare_and_set

log = structlog.get_logger()

PASS_SECONDS: Final = 5.0
"""Interval of the passes over all sources."""

KNOWN_FOR: Final = timedelta(minutes=5)
"""Time after which the credentials of a source are looked at again. GitHub is asked only about new ones."""

UNKNOWN_FOR: Final = timedelta(seconds=30)
"""Time after which the login is looked for again if it could not be found out."""


class SourceLogins:
    """Stores the login in the status of each source that has credentials."""

    def __init__(self, store: Store, catalog: Catalog, access: GitHubAccess, clock: Clock) -> None:
        self._store, self._catalog, self._access, self._clock = store, catalog, access, clock
        self._due: dict[tuple[str, str], datetime] = {}

    async def run(self) -> None:
        """Look at all sources periodically, until cancelled."""
        await self._catalog.synced.wait()
        while True:
            for source in self._catalog.webhook_sources:
                if source.spec.type == GITHUB and source.spec.enabled and source.spec.credentials_ref:
                    await self._store_login(source, source.spec.credentials_ref)
            await self._clock.sleep(PASS_SECONDS)

    async def _store_login(self, source: WebhookSource, credentials: str) -> None:
        key, now = (source.name, credentials), self._clock.now()
        if now < self._due.get(key, now):
            return
        try:
            login = await self._access.login_of(source)

            def change(stored: WebhookSource) -> WebhookSource:
                status = stored.status
                return stored if status.login == login else replace(stored, status=replace(status, login=login))

            with suppress(NotFound):  # the source was deleted
                await compare_and_set(self._store, lambda: self._store.get(WebhookSource, source.name), change)
            self._due[key] = now + KNOWN_FOR
        except (NoAccess, LabratsError) as error:
            log.warning("login not known", source=source.name, reason=str(error))
            self._due[key] = now + UNKNOWN_FOR
