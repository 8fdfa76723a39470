"""The agents, instructions, models, settings and webhook sources from which jobs are created, as the store has them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import structlog

from labrats.model.agent import AiAgent
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfig, AiConfigSpec, EnginePause
from labrats.model.ai_model import AiModel
from labrats.model.instruction import AiInstruction, Scope
from labrats.model.record import Resource, seniority
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Changed, Deleted, Store

R = TypeVar("R", bound=Resource)

log = structlog.get_logger()

KINDS: Final = (AiAgent, AiInstruction, AiModel, AiConfig, WebhookSource)


class ResourceIndex(Generic[R]):
    """The resources of one kind, by name. An older version never replaces a newer one."""

    def __init__(self) -> None:
        self._by_name: dict[str, R] = {}
        self._deleted_uids: set[str] = set()
        """Uids of deleted resources whose deletion the watch has yet to report."""

    def get(self, name: str) -> R | None:
        return self._by_name.get(name)

    def all(self) -> Sequence[R]:
        """Return the resources, ordered by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def put(self, resource: R) -> None:
        known = self._by_name.get(resource.name)
        is_newer = known is None or _version(known) < _version(resource)
        if is_newer and resource.metadata.uid not in self._deleted_uids:
            self._by_name[resource.name] = resource

    def remove(self, resource: R) -> None:
        """Remove a resource that this engine has just deleted, and ignore what the watch still reports of it."""
        if self._remove(resource):
            self._deleted_uids.add(resource.metadata.uid)

    def confirm_removal(self, resource: R) -> None:
        """Remove a resource whose deletion the watch reports."""
        self._remove(resource)
        self._deleted_uids.discard(resource.metadata.uid)

    def _remove(self, resource: R) -> bool:
        known = self._by_name.get(resource.name)
        if known is None or known.metadata.uid != resource.metadata.uid:
            return False
        del self._by_name[resource.name]
        return True


class Catalog:
    """An index of the resources from which jobs are created. `follow` keeps it up to date.

    Code that writes one of these resources also calls `put` or `remove`, so that the next request sees the change
    before the watch reports it.
    """

    def __init__(self) -> None:
        self._indexes: dict[type[Resource], ResourceIndex[Any]] = {kind: ResourceIndex() for kind in KINDS}
        self._unsynced: set[type[Resource]] = set(KINDS)
        self._reported: set[str] = set()
        self.synced = asyncio.Event()
        self.changed = asyncio.Event()
        """An event that every change sets. Its only reader clears it before reading the catalog."""
        self.on_change: Callable[[str], None] | None = None
        """Function that is called with the kind of each resource that the watch reports as changed."""
        self.changing = asyncio.Lock()
        """A lock for writers, held from the check of a resource against the others until it is written and `put`."""
        self.comparing = asyncio.Lock()
        """A lock for the comparison of a large event with all triggers: one at a time, so that a thread is enough."""

    async def follow(self, store: Store) -> None:
        """Apply every change until cancelled. Set `synced` once all existing resources are in the catalog."""
        async with asyncio.TaskGroup() as watches:
            for kind in KINDS:
                watches.create_task(self._follow(kind, store), name=f"watch-{kind.kind()}")

    def put(self, resource: Resource) -> None:
        """Add or replace a resource that has just been written."""
        self._indexes[type(resource)].put(resource)
        self.changed.set()

    def remove(self, resource: Resource) -> None:
        """Remove a resource that has just been deleted."""
        self._indexes[type(resource)].remove(resource)
        self.changed.set()

    @property
    def agents(self) -> Sequence[AiAgent]:
        """All agents, by name."""
        return self._index(AiAgent).all()

    def agent(self, name: str) -> AiAgent | None:
        return self._index(AiAgent).get(name)

    @property
    def agents_by_trigger_name(self) -> dict[str, AiAgent]:
        """The agents by `triggerName`. Of several agents with one name, applied with kubectl, the oldest has it."""
        found: dict[str, AiAgent] = {}
        for agent in sorted(self.agents, key=seniority):
            holder = found.setdefault(agent.spec.trigger_name, agent)
            if holder is not agent:
                self._report(agent, f"its triggerName belongs to the older agent {holder.name!r}")
        return {agent.spec.trigger_name: agent for agent in sorted(found.values(), key=lambda agent: agent.name)}

    @property
    def ai_models(self) -> Sequence[AiModel]:
        """All configured models, by name."""
        return self._index(AiModel).all()

    @property
    def instructions(self) -> Sequence[AiInstruction]:
        """All instructions, by name."""
        return self._index(AiInstruction).all()

    def instruction(self, name: str) -> AiInstruction | None:
        return self._index(AiInstruction).get(name)

    def instructions_of(self, agent: AiAgent) -> Sequence[AiInstruction]:
        """Return the global instructions by priority, then the agent's own in its order.

        Each appears once; missing ones are left out.
        """
        global_ones = [each for each in self.instructions if each.spec.scope is Scope.GLOBAL]
        found = {each.name: each for each in sorted(global_ones, key=lambda each: each.spec.priority)}
        for name in agent.spec.instructions:
            if instruction := self.instruction(name):
                found.setdefault(name, instruction)
            else:
                self._report(agent, f"the instruction {name!r} does not exist")
        return list(found.values())

    def missing_instructions(self, agent: AiAgent) -> Sequence[str]:
        """Return the names in the agent's `instructions` that do not exist."""
        return [name for name in agent.spec.instructions if self.instruction(name) is None]

    @property
    def webhook_sources(self) -> Sequence[WebhookSource]:
        """All webhook sources, by name."""
        return self._index(WebhookSource).all()

    def webhook_source(self, name: str) -> WebhookSource | None:
        return self._index(WebhookSource).get(name)

    @property
    def ai_config(self) -> AiConfigSpec:
        """The settings of the engine; empty when no AiConfig exists."""
        found = self._index(AiConfig).get(AI_CONFIG_NAME)
        return found.spec if found else AiConfigSpec()

    @property
    def pause(self) -> EnginePause | None:
        """The pause of the engine; None without one."""
        found = self._index(AiConfig).get(AI_CONFIG_NAME)
        return found.pause if found else None

    async def _follow(self, kind: type[R], store: Store) -> None:
        index = self._index(kind)
        async for change in store.watch(kind):
            match change:
                case Changed(resource):
                    index.put(resource)
                case Deleted(resource):
                    index.confirm_removal(resource)
                case _:
                    self._unsynced.discard(kind)
                    if not self._unsynced:
                        self.synced.set()
            self.changed.set()
            if self.on_change:
                self.on_change(kind.kind())

    def _index(self, kind: type[R]) -> ResourceIndex[R]:
        return self._indexes[kind]

    def _report(self, agent: AiAgent, reason: str) -> None:
        """Log once that a part of an agent is ignored, and why. Only agents applied with kubectl have such parts."""
        if (report := f"{agent.metadata.uid} {reason}") not in self._reported:
            self._reported.add(report)
            log.warning("part of agent ignored", agent=agent.name, reason=reason)


def _version(resource: Resource) -> int:
    return int(resource.metadata.resource_version)
