"""The agents, instructions, settings and webhook sources that jobs are made by, in memory, fed by the store's watch."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

import structlog

from labrats.model.agent import AiAgent
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfig, AiConfigSpec
from labrats.model.instruction import AiInstruction, Scope
from labrats.model.record import Resource, seniority
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Changed, Deleted, Store

R = TypeVar("R", bound=Resource)

log = structlog.get_logger()

KINDS: Final = (AiAgent, AiInstruction, AiConfig, WebhookSource)


class Shelf(Generic[R]):
    """The resources of one kind, by name. News that is older than what is known changes nothing."""

    def __init__(self) -> None:
        self._by_name: dict[str, R] = {}
        self._forgotten: set[str] = set()
        """The uids of those whose deletion is known, though the watch has yet to tell of it."""

    def get(self, name: str) -> R | None:
        return self._by_name.get(name)

    def all(self) -> Sequence[R]:
        """Ordered by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def put(self, resource: R) -> None:
        known = self._by_name.get(resource.name)
        is_news = known is None or _version(known) < _version(resource)
        if is_news and resource.metadata.uid not in self._forgotten:
            self._by_name[resource.name] = resource

    def forget(self, resource: R) -> None:
        """It was deleted, and the watch has yet to tell of it."""
        if self._remove(resource):
            self._forgotten.add(resource.metadata.uid)

    def drop(self, resource: R) -> None:
        """The watch tells that it was deleted."""
        self._remove(resource)
        self._forgotten.discard(resource.metadata.uid)

    def _remove(self, resource: R) -> bool:
        known = self._by_name.get(resource.name)
        if known is None or known.metadata.uid != resource.metadata.uid:
            return False
        del self._by_name[resource.name]
        return True


class Catalog:
    """What jobs are made by. `follow` keeps it up to date; every other method answers at once.

    Whoever writes one of these resources tells of it by `take_in` or `forget`, so that the next request sees it.
    """

    def __init__(self) -> None:
        self._shelves: dict[type[Resource], Shelf[Any]] = {kind: Shelf() for kind in KINDS}
        self._unsynced: set[type[Resource]] = set(KINDS)
        self._reported: set[str] = set()
        self.synced = asyncio.Event()
        self.changed = asyncio.Event()
        """Set by every change that is taken in. For one reader, which clears it before it looks."""
        self.changing = asyncio.Lock()
        """Held from the check of one resource against the others until it is written and taken in."""

    async def follow(self, store: Store) -> None:
        """Take in every change, until cancelled. `synced` is set once all that exists is known."""
        async with asyncio.TaskGroup() as watches:
            for kind in KINDS:
                watches.create_task(self._follow(kind, store), name=f"watch-{kind.kind()}")

    def take_in(self, resource: Resource) -> None:
        """`resource` was written just now."""
        self._shelves[type(resource)].put(resource)
        self.changed.set()

    def forget(self, resource: Resource) -> None:
        """`resource` was deleted just now."""
        self._shelves[type(resource)].forget(resource)
        self.changed.set()

    @property
    def agents(self) -> Sequence[AiAgent]:
        """All agents, by name."""
        return self._shelf(AiAgent).all()

    def agent(self, name: str) -> AiAgent | None:
        return self._shelf(AiAgent).get(name)

    @property
    def agents_by_trigger_name(self) -> dict[str, AiAgent]:
        """The agents as jobs and chains call them. A name that several were given by hand is that of the oldest."""
        found: dict[str, AiAgent] = {}
        for agent in sorted(self.agents, key=seniority):
            holder = found.setdefault(agent.spec.trigger_name, agent)
            if holder is not agent:
                self._report(agent, f"its trigger name is that of the agent {holder.name!r}, which is older")
        return {agent.spec.trigger_name: agent for agent in sorted(found.values(), key=lambda agent: agent.name)}

    @property
    def instructions(self) -> Sequence[AiInstruction]:
        """All instructions, by name."""
        return self._shelf(AiInstruction).all()

    def instruction(self, name: str) -> AiInstruction | None:
        return self._shelf(AiInstruction).get(name)

    def instructions_of(self, agent: AiAgent) -> Sequence[AiInstruction]:
        """The global ones by priority, then those the agent names, in its order; each once, and those that exist."""
        everybodys = [each for each in self.instructions if each.spec.scope is Scope.GLOBAL]
        found = {each.name: each for each in sorted(everybodys, key=lambda each: each.spec.priority)}
        for name in agent.spec.instructions:
            if instruction := self.instruction(name):
                found.setdefault(name, instruction)
            else:
                self._report(agent, f"it names the instruction {name!r}, which there is not")
        return list(found.values())

    def missing_instructions(self, agent: AiAgent) -> Sequence[str]:
        """The names by which the agent means instructions that there are not."""
        return [name for name in agent.spec.instructions if self.instruction(name) is None]

    @property
    def webhook_sources(self) -> Sequence[WebhookSource]:
        """All webhook sources, by name."""
        return self._shelf(WebhookSource).all()

    def webhook_source(self, name: str) -> WebhookSource | None:
        return self._shelf(WebhookSource).get(name)

    @property
    def ai_config(self) -> AiConfigSpec:
        """The settings of the engine; empty ones where nobody has made any."""
        found = self._shelf(AiConfig).get(AI_CONFIG_NAME)
        return found.spec if found else AiConfigSpec()

    async def _follow(self, kind: type[R], store: Store) -> None:
        shelf = self._shelf(kind)
        async for change in store.watch(kind):
            match change:
                case Changed(resource):
                    shelf.put(resource)
                case Deleted(resource):
                    shelf.drop(resource)
                case _:
                    self._unsynced.discard(kind)
                    if not self._unsynced:
                        self.synced.set()
            self.changed.set()

    def _shelf(self, kind: type[R]) -> Shelf[R]:
        return self._shelves[kind]

    def _report(self, agent: AiAgent, reason: str) -> None:
        """Say once that a part of a hand-made agent is passed over, and why."""
        if (complaint := f"{agent.metadata.uid} {reason}") not in self._reported:
            self._reported.add(complaint)
            log.warning("a part of an agent is passed over", agent=agent.name, reason=reason)


def _version(resource: Resource) -> int:
    return int(resource.metadata.resource_version)
