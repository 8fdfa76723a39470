"""The status of webhook sources: whether the Secret exists, and whether the receiver is ready."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from labrats.controller.credential_labels import CredentialLabels
from labrats.controller.reviews import review_each
from labrats.index.source_conditions import with_conditions
from labrats.model.condition import Condition, ConditionFactory, condition_factory
from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict, NotFound, RetryLater
from labrats.model.job import OWNER_PREFIX
from labrats.model.webhook_source import ACCEPTING, SHORTEST_SECRET, STARTING, WebhookSource, WebhookSourceStatus
from labrats.ports import Changed, Clock, Store

log = structlog.get_logger()

PASS_SECONDS: Final = 10.0
"""Interval of the passes that notice changes that no watch reports: of Secrets, and of receivers."""

LOCAL_PASS_SECONDS: Final = 2.0
"""Interval on one machine, where a pass costs next to nothing. `labrats secret` writes from another process."""

STARTING_SECONDS: Final = 1.0
"""Interval of the reviews of a source whose receiver starts. Somebody may wait for it."""

LONGEST_START: Final = timedelta(minutes=2)
"""Time after which a receiver that still starts is reviewed as rarely as others."""


_OF_RECEIVERS: Final = ("SecretFound", "Provisioned", "Exposed")
"""Types of the conditions that a source in the mode `poll` does not have."""


class Receivers(Protocol):
    """Processes that receive the deliveries of webhook sources."""

    def url(self, source: WebhookSource) -> str | None:
        """Return the address for deliveries; None if it depends on the address of the API."""
        ...

    async def provide(self, source: WebhookSource, secret: Secret, report: ConditionFactory) -> Sequence[Condition]:
        """Create or update the receiver of a source whose Secret exists, and return conditions on its progress.

        Safe to repeat. Raises RetryLater.
        """
        ...

    def withhold(self, source: WebhookSource, missing: str, report: ConditionFactory) -> Sequence[Condition]:
        """Return conditions for a source without a usable Secret.

        missing: what is missing, in a few words.
        """
        ...


class OwnReceiver:
    """The engine itself as receiver, at `/webhooks/{name}`."""

    def url(self, source: WebhookSource) -> str | None:
        return None

    async def provide(self, source: WebhookSource, secret: Secret, report: ConditionFactory) -> Sequence[Condition]:
        if source.spec.enabled:
            ready = report("Ready", True, "Serving", "the engine accepts deliveries")
        else:
            ready = report("Ready", False, "SwitchedOff", "the source is disabled: its address answers 404")
        return [_served_by_engine(report), ready]

    def withhold(self, source: WebhookSource, missing: str, report: ConditionFactory) -> Sequence[Condition]:
        ready = report("Ready", False, "SecretMissing", f"deliveries cannot be verified: {missing}")
        return [_served_by_engine(report), ready]


class SourceStatusReconciler:
    """Maintains the receivers and conditions of webhook sources. Keeps no state between passes."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        receivers: Receivers,
        pass_seconds: float = PASS_SECONDS,
        labels: CredentialLabels | None = None,
        full_queue: Callable[[str], str | None] | None = None,
    ) -> None:
        """Create the reconciler. On one machine it has neither of these:

        labels:     checks the labels of Secrets with credentials for repositories.
        full_queue: returns why no further job of an owner may wait; None if it may.
        """
        self._store, self._clock, self._receivers, self._labels = store, clock, receivers, labels
        self._pass_seconds, self._full_queue = pass_seconds, full_queue
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Review all sources periodically, and after each change of one, until cancelled.

        In between, review those whose receiver starts.
        """
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch(), name="watch webhook sources")
            time, due = asyncio.get_running_loop().time, 0.0
            while True:
                all_are_due = self._changed.is_set() or time() >= due
                self._changed.clear()
                any_starts = await self._review_sources(only_starting=not all_are_due)
                if all_are_due:
                    due = time() + self._pass_seconds
                with suppress(TimeoutError):
                    async with asyncio.timeout(STARTING_SECONDS if any_starts else due - time()):
                        await self._changed.wait()

    async def _watch(self) -> None:
        async for change in self._store.watch(WebhookSource):
            if isinstance(change, Changed):
                self._changed.set()

    async def _review_sources(self, *, only_starting: bool) -> bool:
        """Review all sources, or those whose receiver starts. Return whether there is one."""
        try:
            sources = await self._store.list(WebhookSource)
        except RetryLater as error:
            log.warning("webhook source review postponed", reason=str(error))
            return False
        starting = [each for each in sources if _is_starting(each, self._clock.now())]
        await review_each(starting if only_starting else sources, self._review)
        return bool(starting)

    async def _review(self, source: WebhookSource) -> None:
        report = condition_factory(self._clock.now().replace(microsecond=0))
        if source.spec.polls and source.spec.secret_ref is None:
            await self._review_polling(source, report)
            return
        secret = await self._secret(source)
        if isinstance(secret, str):
            found = report("SecretFound", False, "Missing", secret)
            others = self._receivers.withhold(source, secret, report)
        else:
            found = _secret_found(source, secret, report)
            others = await self._receivers.provide(source, secret, report)
        on_cluster = [await self._labelled(source, report), self._accepting(source, report)]
        await self._store_conditions(source, [found, *others, *filter(None, on_cluster)])

    async def _review_polling(self, source: WebhookSource, report: ConditionFactory) -> None:
        """Review a source that reads its events from GitHub. It needs no receiver, and no Secret for signatures."""
        ready = report("Ready", True, "Polling", "the engine reads the events of the repositories")
        if not source.spec.enabled:
            ready = report("Ready", False, "SwitchedOff", "the source is disabled: nothing is read")
        labelled = await self._labelled(source, report)
        unused = replace(source, status=replace(source.status, conditions=_without_receiver(source.status.conditions)))
        await self._store_conditions(
            unused, [ready, *filter(None, [labelled, self._accepting(source, report)])], source.status
        )

    async def _labelled(self, source: WebhookSource, report: ConditionFactory) -> Condition | None:
        if self._labels is None:
            return None
        return await self._labels.condition(source.spec.credentials_ref, source.status.conditions, report)

    def _accepting(self, source: WebhookSource, report: ConditionFactory) -> Condition | None:
        if self._full_queue is None:
            return None
        if problem := self._full_queue(f"{OWNER_PREFIX}{source.name}"):
            return report(ACCEPTING, False, "QueueFull", problem)
        return report(ACCEPTING, True, "QueueHasRoom", "the queue has room for further jobs")

    async def _secret(self, source: WebhookSource) -> Secret | str:
        """Return the Secret of the source, or what is missing."""
        if (reference := source.spec.secret_ref) is None:
            return "the source names no Secret"
        try:
            secret = await self._store.get(Secret, reference.name)
        except NotFound:
            return f"there is no Secret {reference.name!r}"
        if secret.data.get(reference.key):
            return secret
        return f"the Secret {reference.name!r} has no key {reference.key!r}"

    async def _store_conditions(
        self, source: WebhookSource, conditions: Sequence[Condition], before: WebhookSourceStatus | None = None
    ) -> None:
        """Store the status of a source with new conditions. before: what is stored, if it is not that of `source`."""
        before, url = before or source.status, self._receivers.url(source) if source.spec.secret_ref else None
        status = replace(source.status, url=url, conditions=with_conditions(source.status.conditions, conditions))
        if status == replace(before, conditions=with_conditions(before.conditions, [])):
            return
        try:
            await self._store.update(replace(source, status=status))
        except (Conflict, NotFound):
            self._changed.set()  # another writer was faster: review it again


def _without_receiver(conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    return tuple(each for each in conditions if each.type not in _OF_RECEIVERS)


def _is_starting(source: WebhookSource, now: datetime) -> bool:
    return any(
        each.type == "Ready" and each.reason == STARTING and now - each.last_transition_time < LONGEST_START
        for each in source.status.conditions
    )


def _secret_found(source: WebhookSource, secret: Secret, report: ConditionFactory) -> Condition:
    assert source.spec.secret_ref, "a source without one has no Secret"
    if len(secret.data[source.spec.secret_ref.key]) < SHORTEST_SECRET:
        message = f"the secret in {secret.name!r} can be guessed: it has fewer than {SHORTEST_SECRET} characters"
        return report("SecretFound", True, "TooShort", message)
    return report("SecretFound", True, "Found", f"the Secret {secret.name!r} has the key")


def _served_by_engine(report: ConditionFactory) -> Condition:
    return report("Provisioned", True, "BuiltIn", "the engine itself serves the address")
