"""The time of the last use of each stored API key, written to its Secret at intervals."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

import structlog
from msgspec.structs import replace

from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict, Invalid, NotFound, RetryLater
from labrats.ports import Clock, Store

log = structlog.get_logger()

ANNOTATION: Final = "labrats.work/last-used-at"

PRECISION: Final = timedelta(minutes=10)
"""Time within which a further use of a key is not written."""

WRITE_SECONDS: Final = 5.0
"""The least time between two rounds of writes, so that many keys cause no flood of them."""


class KeyUses:
    """The last use of each key that this engine has authenticated. A killed engine loses those of the last minutes."""

    def __init__(self) -> None:
        self._last: dict[str, datetime] = {}
        self._written: dict[str, datetime] = {}
        self._changed = asyncio.Event()

    def record(self, secret_name: str, now: datetime) -> None:
        """Take note of a use of the key in the Secret."""
        self._last[secret_name] = now
        if self._is_due(secret_name):
            self._changed.set()

    def last_use(self, secret: Secret) -> datetime | None:
        """Return the last known use of the key, by this engine or another; None if it was never used."""
        known = [each for each in (_stored(secret), self._last.get(secret.name)) if each]
        return max(known, default=None)

    async def run(self, store: Store, clock: Clock) -> None:
        """Write the uses until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for name in filter(self._is_due, list(self._last)):
                await self._write(name, store)
            await clock.sleep(WRITE_SECONDS)

    def _is_due(self, name: str) -> bool:
        written = self._written.get(name)
        return written is None or self._last[name] - written >= PRECISION

    async def _write(self, name: str, store: Store) -> None:
        used_at = self._last[name]
        try:
            secret = await store.get(Secret, name)
            if (stored := _stored(secret)) is None or used_at - stored >= PRECISION:
                annotations = secret.metadata.annotations | {ANNOTATION: used_at.isoformat()}
                await store.update(replace(secret, metadata=replace(secret.metadata, annotations=annotations)))
            self._written[name] = used_at
        except NotFound:
            self._last.pop(name, None)  # it was revoked
            self._written.pop(name, None)
        except (Conflict, Invalid, RetryLater) as error:
            log.info("use of an API key not recorded yet", secret=name, reason=str(error))
            self._changed.set()


def _stored(secret: Secret) -> datetime | None:
    """Return the use that is stored with the key. An invalid time, written with kubectl, does not count."""
    try:
        used_at = datetime.fromisoformat(secret.metadata.annotations.get(ANNOTATION, ""))
    except ValueError:
        return None
    return used_at if used_at.tzinfo else None
