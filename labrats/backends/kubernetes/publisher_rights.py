"""The right of the publisher to read Secrets: those with the credentials of webhook sources, and no others.

The publisher runs git on what agents have produced. The chart gives it a Role without rules, which the leader fills.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import structlog

from labrats.backends.kubernetes.client import MERGE_PATCH, ApiClient
from labrats.model.errors import LabratsError, NotFound
from labrats.model.record import encode
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Changed, Deleted, Store, Synced

log = structlog.get_logger()

ROLE: Final = "labrats-publisher-secrets"

RETRY_SECONDS: Final = 5.0


class PublisherRights:
    """Keeps the Role up to date. Only the leader uses it."""

    def __init__(self, client: ApiClient, namespace: str, store: Store) -> None:
        self._client, self._store = client, store
        self._path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/{ROLE}"
        self._named: dict[str, str | None] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Update the Role after each change of a source, until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch(), name="watch-sources")
            loops.create_task(self._update_when_changed(), name="update-role")

    async def _watch(self) -> None:
        is_synced = False
        async for change in self._store.watch(WebhookSource):
            match change:
                case Changed(source):
                    self._named[source.name] = source.spec.credentials_ref
                case Deleted(source):
                    self._named.pop(source.name, None)
                case Synced():
                    is_synced = True
            if is_synced:
                self._changed.set()

    async def _update_when_changed(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._update()
            except LabratsError as error:
                log.warning("Role of the publisher not updated", role=ROLE, reason=str(error))
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _update(self) -> None:
        try:
            rules = rules_for(self._named.values())
            await self._client.request("PATCH", self._path, encode({"rules": rules}), content_type=MERGE_PATCH)
        except NotFound:
            log.warning("Role of the publisher missing", role=ROLE, advice="upgrade the chart with the engine")


def rules_for(names: Iterable[str | None]) -> list[dict[str, Any]]:
    """Return the rules of a Role that lets its account read the Secrets with these names. None names none."""
    if not (secrets := sorted({name for name in names if name})):
        return []  # without names, a rule is about all Secrets
    return [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets, "verbs": ["get"]}]
