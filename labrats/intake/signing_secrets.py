"""The secrets with which webhook sources sign their deliveries."""

from pathlib import Path
from typing import Protocol

from labrats.model.core_resources import Secret
from labrats.model.errors import NotFound
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Store


class SigningSecrets(Protocol):
    """Provides the signing secrets of webhook sources."""

    async def of(self, source: WebhookSource) -> str | None:
        """Return the current secret of `source`; None if it has none."""
        ...


class StoredSecrets:
    """The signing secrets of all sources, read from the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, source: WebhookSource) -> str | None:
        if (reference := source.spec.secret_ref) is None:
            return None
        try:
            secret = await self._store.get(Secret, reference.name)
        except NotFound:
            return None
        return secret.data.get(reference.key) or None


class MountedSecret:
    """The signing secret of one source, read from a file. Its receiver has the file instead of access to Secrets."""

    def __init__(self, source_name: str, file: Path) -> None:
        self._source_name, self._file = source_name, file

    async def of(self, source: WebhookSource) -> str | None:
        if source.name != self._source_name:
            return None
        try:
            return self._file.read_text() or None
        except FileNotFoundError:
            return None
