"""Many concurrent writers, and an exact record of the store's answers."""

import asyncio
import random
from dataclasses import dataclass, field

from msgspec.structs import replace

from labrats.model.ai_model import AiModel, AiModelSpec
from labrats.model.core_resources import Secret
from labrats.model.errors import RetryLater
from labrats.model.record import Metadata
from labrats.ports import Store

State = int | None
"""The slots of a writer's AiModel; None if it does not exist."""


@dataclass
class Ledger:
    """The possible content of a store: for each name, the last acknowledged state, and a later request, if any.

    last_version: the highest acknowledged resource version. acknowledgements: the number of acknowledged writes.
    """

    acknowledged: dict[str, State] = field(default_factory=dict)
    asked: dict[str, State] = field(default_factory=dict)
    last_version: int = 0
    acknowledgements: int = 0

    def ask(self, name: str, state: State) -> None:
        self.asked[name] = state

    def acknowledge(self, name: str, version: str | None = None) -> None:
        self.acknowledged[name] = self.asked.pop(name)
        self.acknowledgements += 1
        self.last_version = max(self.last_version, int(version or 0))

    async def losses(self, store: Store) -> list[str]:
        """Describe each acknowledged write that the store lost. Afterwards, no state is in doubt."""
        losses = [await self._loss(store, name) for name in sorted(self.acknowledged.keys() | self.asked.keys())]
        probe = await store.create(a_secret("probe"))
        await store.delete(Secret, "probe")
        if int(probe.metadata.resource_version) <= self.last_version:
            losses.append(f"version {probe.metadata.resource_version} was used twice")
        return [loss for loss in losses if loss]

    async def _loss(self, store: Store, name: str) -> str | None:
        found = await store.get_many(AiModel, [name])
        state = found[0].spec.slots if found else None
        possible = {self.acknowledged.get(name)}
        if name in self.asked:
            possible.add(self.asked.pop(name))
        self.acknowledged[name] = state
        if state not in possible:
            return f"{name} is {state}, not one of {possible}"
        if bool(found) != bool(await store.get_many(Secret, [f"{name}-part"])):
            return f"{name} and its part were separated"
        return None


async def write_until_failure(store: Store, ledger: Ledger, seed: int, writers: int = 8) -> None:
    """Run concurrent writers, each on a resource of its own, until the store raises RetryLater."""
    async with asyncio.TaskGroup() as tasks:
        for n in range(writers):
            tasks.create_task(_write(store, ledger, f"model-{n}", random.Random(f"{seed}-{n}")))


async def _write(store: Store, ledger: Ledger, name: str, random: random.Random) -> None:
    """Create, update and delete a resource, repeatedly. The state only grows, so that old and new ones differ."""
    state = random.randrange(1, 1_000_000)
    try:
        for existing in await store.get_many(AiModel, [name]):
            ledger.ask(name, None)
            await store.delete(AiModel, existing.name)
            ledger.acknowledge(name)
        while True:
            ledger.ask(name, state := state + 1)
            model = await store.create(a_model(name, state), [a_secret(f"{name}-part")])
            ledger.acknowledge(name, model.metadata.resource_version)
            for _ in range(random.randrange(10)):
                ledger.ask(name, state := state + 1)
                model = await store.update(replace(model, spec=replace(model.spec, slots=state)))
                ledger.acknowledge(name, model.metadata.resource_version)
            ledger.ask(name, None)
            await store.delete(AiModel, name)
            ledger.acknowledge(name)
    except RetryLater:
        return


def a_model(name: str, slots: int) -> AiModel:
    return AiModel(
        metadata=Metadata(name=name), spec=AiModelSpec(provider="mock", model=name.ljust(1000, "x"), slots=slots)
    )


def a_secret(name: str) -> Secret:
    return Secret(metadata=Metadata(name=name), data={"password": "test-secret-password"})
