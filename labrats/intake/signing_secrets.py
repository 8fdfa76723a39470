"""The secrets that webhook sources sign with."""

from pathlib import Path
from typing import Protocol

from labrats.model.core_resources import Secret
from labrats.model.errors import NotFound
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Store


class SigningSecrets(Protocol):
    """Where the secrets of webhook sources are."""

    async def of(self, source: WebhookSource) -> str | None:
        """The secret of `source`, as it is now; None where there is none."""
        ...


class StoredSecrets:
    """Those of all sources, in the store."""

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
    """That of one source, in a file, which its pod has instead of a right to read Secrets."""

    def __init__(self, source_name: str, file: Path) -> None:
        self._source_name, self._file = source_name, file

    async def of(self, source: WebhookSource) -> str | None:
        if source.name != self._source_name:
            return None
        try:
            return self._file.read_text() or None
        except FileNotFoundError:
            return None
