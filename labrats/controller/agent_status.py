"""The status of agents: reports invalid ones. The API refuses an invalid agent, but kubectl can apply one."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress

import structlog
from msgspec.structs import replace

from labrats.controller.accepted_condition import reviewed
from labrats.controller.reviews import review_each
from labrats.index.catalog import Catalog
from labrats.intake.events import problem_of_filters
from labrats.model.agent import AiAgent
from labrats.model.errors import Conflict, NotFound
from labrats.model.mcp_server import problem_of_mcp_servers
from labrats.model.network import problem_of_network
from labrats.model.variables import problem_of_variables
from labrats.model.workspace_setup import problem_of_setup
from labrats.ports import Clock, Store

log = structlog.get_logger()


def problem_of(agent: AiAgent, catalog: Catalog, agents: Mapping[str, AiAgent]) -> str:
    """Return the problems of the agent in one sentence; empty if it is valid. agents: all, by `triggerName`."""
    return "; ".join(_problems(agent, catalog, agents))


def _problems(agent: AiAgent, catalog: Catalog, agents: Mapping[str, AiAgent]) -> Iterator[str]:
    if (holder := agents.get(agent.spec.trigger_name)) and holder.name != agent.name:
        yield f"triggerName: the older agent {holder.name!r} has the same one, so this agent gets no jobs"
    for name in catalog.missing_instructions(agent):
        yield f"instructions: there is no instruction {name!r}"
    if problem := problem_of_mcp_servers(agent.spec.mcp_servers or {}):
        yield f"mcpServers: {problem}"
    if problem := problem_of_variables(agent.spec.env or {}):
        yield f"env: {problem}"
    if (network := agent.spec.default_network) is not None and (problem := problem_of_network(network)):
        yield f"defaultNetwork: {problem}"
    if (setup := agent.spec.workspace_setup) and (found := problem_of_setup(setup)):
        yield f"{found.field}: {found.message}"
    for number, trigger in enumerate(agent.spec.event_triggers):
        if problem := problem_of_filters(trigger.filters):
            yield f"eventTriggers[{number}].filters: {problem}"
        if problem := problem_of_mcp_servers(trigger.config.mcp_servers or {}):
            yield f"eventTriggers[{number}].config.mcpServers: {problem}"
        if problem := problem_of_variables(trigger.config.env or {}):
            yield f"eventTriggers[{number}].config.env: {problem}"
        if (network := trigger.config.network) is not None and (problem := problem_of_network(network)):
            yield f"eventTriggers[{number}].config.network: {problem}"
        if trigger.next and (called := trigger.next.agent_trigger_name) not in agents:
            yield f"eventTriggers[{number}].next: there is no agent with the triggerName {called!r}"


async def drop_missing_instructions(store: Store, catalog: Catalog) -> None:
    """Remove instructions that do not exist from the agents, as engines up to 0.1 left them behind.

    Only for a store that no other program writes: on a cluster, an agent may be applied before its instructions.
    """
    await catalog.synced.wait()
    for agent in catalog.agents:
        missing = catalog.missing_instructions(agent)
        for name in missing:
            log.warning("missing instruction dropped", agent=agent.name, instruction=name)
        if missing:
            kept = tuple(each for each in agent.spec.instructions if each not in missing)
            catalog.put(await store.update(replace(agent, spec=replace(agent.spec, instructions=kept))))


class AgentStatusReconciler:
    """Maintains the condition `Accepted` of agents. An agent that was always valid has none, and costs no write."""

    def __init__(self, store: Store, catalog: Catalog, clock: Clock) -> None:
        self._store, self._catalog, self._clock = store, catalog, clock

    async def run(self) -> None:
        """Review all agents after each change of the catalog, until cancelled."""
        await self._catalog.synced.wait()
        while True:
            self._catalog.changed.clear()
            delay = await self._review_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._catalog.changed.wait()

    async def _review_all(self) -> float | None:
        """Review all agents. Return the seconds after which to try again, if a review has failed."""
        by_trigger_name = self._catalog.agents_by_trigger_name  # once, since it sorts all agents
        return await review_each(self._catalog.agents, lambda agent: self._review(agent, by_trigger_name))

    async def _review(self, agent: AiAgent, agents: Mapping[str, AiAgent]) -> None:
        problem = problem_of(agent, self._catalog, agents)
        conditions = reviewed(agent.status.conditions, problem, self._clock.now())
        if conditions is None:
            return
        with suppress(Conflict, NotFound):  # another writer was faster: the catalog will report the change
            await self._store.update(replace(agent, status=replace(agent.status, conditions=conditions)))
