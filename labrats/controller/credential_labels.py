"""Tells a resource that names a Secret for its jobs whether the Secret is labelled for them."""

from collections.abc import Sequence
from typing import Final

from labrats.model.condition import Condition, ConditionFactory
from labrats.model.core_resources import Secret, is_for_jobs, is_of_engine, label_command
from labrats.model.errors import NotFound
from labrats.ports import Store

LABELLED: Final = "CredentialsLabelled"
"""The type of the condition. A resource whose Secret was always labelled has none."""


class CredentialLabels:
    """Looks at the Secrets of a cluster. On one machine nobody but the engine's user can name one."""

    def __init__(self, store: Store, *, required: bool) -> None:
        """required: whether jobs get labelled Secrets only."""
        self._store, self._required = store, required

    async def condition(self, name: str | None, known: Sequence[Condition], told: ConditionFactory) -> Condition | None:
        """The condition of a resource that names this Secret; None where there is nothing to tell.

        known: the conditions that the resource has. Raises RetryLater.
        """
        secret = await self._find(name)
        if secret and is_of_engine(secret):
            return told(LABELLED, False, "OfTheEngine", f"the Secret {name!r} is the engine's own: its jobs fail")
        if secret and not is_for_jobs(secret):
            what = "its jobs fail" if self._required else "its jobs will fail once LABRATS_LABELLED_CREDENTIALS is true"
            return told(LABELLED, False, "Unlabelled", f"{what}: {label_command(secret.name)}")
        if any(each.type == LABELLED for each in known):
            return told(LABELLED, True, "Labelled", "no Secret without a label is named")
        return None

    async def _find(self, name: str | None) -> Secret | None:
        try:
            return await self._store.get(Secret, name) if name else None
        except NotFound:
            return None
