"""The condition `CredentialsLabelled` of resources that name a Secret for their jobs."""

from collections.abc import Sequence
from typing import Final

from labrats.model.condition import Condition, ConditionFactory
from labrats.model.core_resources import Secret, is_for_jobs, is_of_engine, label_command
from labrats.model.errors import NotFound
from labrats.ports import Store

LABELLED: Final = "CredentialsLabelled"
"""Type of the condition. A resource whose Secret was always labelled has none."""


class CredentialLabels:
    """Checks the labels of Secrets on a cluster. On one machine only the engine's user can name a Secret."""

    def __init__(self, store: Store, *, required: bool) -> None:
        """required: whether jobs may use only labelled Secrets."""
        self._store, self._required = store, required

    async def condition(
        self, name: str | None, known: Sequence[Condition], report: ConditionFactory
    ) -> Condition | None:
        """Return the condition of a resource that names this Secret; None if it needs none.

        known: the conditions that the resource has. Raises RetryLater.
        """
        secret = await self._find(name)
        if secret and is_of_engine(secret):
            return report(LABELLED, False, "OfTheEngine", f"the Secret {name!r} is the engine's own: jobs with it fail")
        if secret and not is_for_jobs(secret):
            problem = "its jobs fail" if self._required else "its jobs fail once LABRATS_LABELLED_CREDENTIALS is true"
            message = f"the Secret {name!r} is not labelled for jobs, and {problem}: {label_command(secret.name)}"
            return report(LABELLED, False, "Unlabelled", message)
        if any(each.type == LABELLED for each in known):
            return report(LABELLED, True, "Labelled", "the resource names no unlabelled Secret")
        return None

    async def _find(self, name: str | None) -> Secret | None:
        try:
            return await self._store.get(Secret, name) if name else None
        except NotFound:
            return None
