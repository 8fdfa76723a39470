"""The status of AiModels: reports duplicates, which only kubectl can create, and on a cluster unlabelled Secrets."""

import asyncio
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from labrats.controller.accepted_condition import reviewed
from labrats.controller.credential_labels import CredentialLabels
from labrats.controller.reviews import review_each
from labrats.model.ai_model import AiModel, ai_models_in_use
from labrats.model.condition import condition_factory, with_condition
from labrats.model.errors import Conflict, NotFound
from labrats.ports import Changed, Clock, Deleted, Store

PASS_SECONDS: Final = 60.0
"""Interval of the passes that notice changed labels of Secrets, which no watch reports."""


class ModelStatusReconciler:
    """Maintains the conditions of AiModels. A valid AiModel has none, and costs no write."""

    def __init__(self, store: Store, clock: Clock, labels: CredentialLabels | None = None) -> None:
        """labels: checks the labels of their Secrets. None on one machine."""
        self._store, self._clock, self._labels = store, clock, labels
        self._known: dict[str, AiModel] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Review all AiModels whenever one has changed, and their Secrets periodically, until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch(), name="watch-ai-models")
            delay = None
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay or (PASS_SECONDS if self._labels else None)):
                        await self._changed.wait()
                self._changed.clear()
                delay = await self._review_all()

    async def _watch(self) -> None:
        is_synced = False
        async for change in self._store.watch(AiModel):
            match change:
                case Changed(ai_model):
                    self._known[ai_model.name] = ai_model
                case Deleted(ai_model):
                    self._known.pop(ai_model.name, None)
                case _:
                    is_synced = True
            if is_synced:  # before that an older AiModel may be unknown
                self._changed.set()

    async def _review_all(self) -> float | None:
        """Review all AiModels. Return the seconds after which to try again, if a review has failed."""
        known = list(self._known.values())
        in_use = ai_models_in_use(known)
        return await review_each(known, lambda each: self._review(each, in_use[each.spec.provider, each.spec.model]))

    async def _review(self, ai_model: AiModel, holder: AiModel) -> None:
        problem = ""
        if holder.name != ai_model.name:
            problem = f"the older AiModel {holder.name!r} has {holder.claim}: no job runs on this one"
        known, now = ai_model.status.conditions, self._clock.now()
        conditions = reviewed(known, problem, now) or known
        if self._labels and (
            labelled := await self._labels.condition(ai_model.spec.credentials_ref, known, condition_factory(now))
        ):
            conditions = with_condition(conditions, labelled)
        if set(conditions) == set(known):
            return
        with suppress(Conflict, NotFound):  # another writer was faster: the watch will report the change
            await self._store.update(replace(ai_model, status=replace(ai_model.status, conditions=conditions)))
