"""Problems of agents are reported in their condition `Accepted`."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from labrats.controller.agent_status import AgentStatusReconciler, drop_missing_instructions, problem_of
from labrats.index.catalog import Catalog
from labrats.model.agent import AiAgent, ChainLink
from labrats.model.config import JobConfig
from labrats.model.errors import Invalid, LabratsError, Problem, RetryLater
from labrats.model.mcp_server import McpServer
from tests.fakes.clock import NOON, FakeClock
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background
from tests.support.builders import a_trigger, an_agent, an_instruction
from tests.support.waiting import eventually


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def catalog(store: MemoryStore) -> AsyncIterator[Catalog]:
    """The catalog of an engine that reviews agents."""
    catalog, clock = Catalog(), FakeClock()
    async with run_in_background(catalog.follow(store), AgentStatusReconciler(store, catalog, clock).run()):
        yield catalog


def conditions(catalog: Catalog, name: str = "ai-developer") -> list[tuple[str, str]]:
    """Return the status and message of each condition."""
    agent = catalog.agent(name)
    return [(each.status, each.message) for each in agent.status.conditions] if agent else []


@pytest.mark.parametrize(
    ("agent", "problem"),
    [
        (
            an_agent("new", trigger_name="ai-reviewer"),
            "triggerName: the older agent 'ai-reviewer' has the same one",
        ),
        (an_agent(instructions=("missing",)), "instructions: there is no instruction 'missing'"),
        (an_agent("a", a_trigger(filters={"a..b": 1})), "eventTriggers[0].filters: 'a..b' is not a path"),
        (
            an_agent("a", a_trigger(), a_trigger(filters={"a": {"b": 1}})),
            "eventTriggers[1].filters: 'a' must be compared",
        ),
        (an_agent(env={"HOME": "/root"}), "env: HOME is set by the engine"),
        (an_agent(mcp_servers={"docs": McpServer()}), "mcpServers: docs: must have either a `command`"),
        (
            an_agent("a", a_trigger(config=JobConfig(mcp_servers={"two words": McpServer(command="x")}))),
            "eventTriggers[0].config.mcpServers: the name 'two words' must be 1 to 64 letters",
        ),
        (
            an_agent("a", a_trigger(next=ChainLink(agent_trigger_name="nobody"))),
            "eventTriggers[0].next: there is no agent with the triggerName 'nobody'",
        ),
    ],
)
def test_a_problem_of_an_agent_is_described(agent: AiAgent, problem: str) -> None:
    catalog = Catalog()
    catalog.put(an_agent("ai-reviewer", created_at=NOON.replace(year=2020)))
    catalog.put(agent)
    assert problem in problem_of(agent, catalog, catalog.agents_by_trigger_name)


def test_a_valid_agent_has_no_problem() -> None:
    catalog = Catalog()
    link = ChainLink(agent_trigger_name="ai-reviewer")
    agent = an_agent("a", a_trigger(next=link, filters={"label.name": ["ai", None, 7]}), instructions=("implement",))
    for each in (an_agent("ai-reviewer"), an_instruction("implement"), agent):
        catalog.put(each)
    assert problem_of(agent, catalog, catalog.agents_by_trigger_name) == ""


async def test_a_problem_is_reported_on_the_agent_until_it_is_fixed(store: MemoryStore, catalog: Catalog) -> None:
    await store.create(an_agent(instructions=("implement",)))
    await eventually(lambda: conditions(catalog) == [("False", "instructions: there is no instruction 'implement'")])
    await store.create(an_instruction("implement"))
    await eventually(lambda: conditions(catalog) == [("True", "")])


async def test_a_changed_problem_is_reported_again(store: MemoryStore, catalog: Catalog) -> None:
    await store.create(an_agent(instructions=("a", "b")))
    await eventually(lambda: len(conditions(catalog)) == 1)
    await store.create(an_instruction("a"))
    await eventually(lambda: conditions(catalog) == [("False", "instructions: there is no instruction 'b'")])


async def test_a_valid_agent_is_not_written(store: MemoryStore, catalog: Catalog) -> None:
    created = await store.create(an_agent("well"))
    bad = await store.create(an_agent("zzz", instructions=("missing",)))
    await eventually(lambda: bool(conditions(catalog, "zzz")))
    assert (await store.get(AiAgent, "well")).metadata == created.metadata
    await store.update(replace(await store.get(AiAgent, "zzz"), spec=replace(bad.spec, instructions=())))
    await eventually(lambda: conditions(catalog, "zzz") == [("True", "")])


async def test_the_order_of_all_agents_is_found_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, calls = Catalog(), list[int]()
    for number in range(10):
        catalog.put(an_agent(f"agent-{number}"))
    catalog.synced.set()
    by_trigger_name = catalog.agents_by_trigger_name

    def counted(_: Catalog) -> dict[str, AiAgent]:
        calls.append(1)
        return by_trigger_name

    monkeypatch.setattr(Catalog, "agents_by_trigger_name", property(counted))
    async with run_in_background(AgentStatusReconciler(MemoryStore(), catalog, FakeClock()).run()):
        await eventually(lambda: bool(calls))

    assert len(calls) == 1


@pytest.mark.parametrize("error", [Invalid(Problem("object", "is too large")), RetryLater("refused", 15)])
async def test_an_agent_whose_status_cannot_be_written_delays_no_other(
    store: MemoryStore, catalog: Catalog, error: LabratsError
) -> None:
    store.refusals["first"] = error
    for name in ("first", "second"):
        await store.create(an_agent(name, instructions=("missing",)))
    await eventually(lambda: bool(conditions(catalog, "second")))
    assert not conditions(catalog, "first")


async def test_missing_instructions_of_an_earlier_version_are_dropped_at_start(store: MemoryStore) -> None:
    await store.create(an_instruction("kept"))
    await store.create(an_agent("dangling", instructions=("gone", "kept")))
    await store.create(an_agent("sound", trigger_name="sound", instructions=("kept",)))
    catalog = Catalog()
    async with run_in_background(catalog.follow(store)):
        with capture_logs() as logged:
            await drop_missing_instructions(store, catalog)

    assert (await store.get(AiAgent, "dangling")).spec.instructions == ("kept",)
    assert (await store.get(AiAgent, "sound")).spec.instructions == ("kept",)
    [entry] = logged
    assert (entry["event"], entry["agent"], entry["instruction"]) == ("missing instruction dropped", "dangling", "gone")
