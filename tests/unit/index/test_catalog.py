"""The catalog follows the store, and takes writes of its own engine at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from labrats.index.catalog import Catalog
from labrats.model.agent import AiAgent
from labrats.model.ai_config import AiConfig, AiConfigSpec
from labrats.model.instruction import AiInstruction, Scope
from labrats.model.record import Metadata
from tests.fakes.clock import NOON
from tests.fakes.store import MemoryStore
from tests.support.builders import an_agent, an_instruction
from tests.support.waiting import eventually


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def catalog(store: MemoryStore) -> AsyncIterator[Catalog]:
    catalog = Catalog()
    task = asyncio.create_task(catalog.follow(store))
    await catalog.synced.wait()
    yield catalog
    task.cancel()


def catalog_of(*resources: AiAgent | AiInstruction | AiConfig) -> Catalog:
    """Build a catalog of `resources`, without a store."""
    catalog = Catalog()
    for resource in resources:
        catalog.put(resource)
    return catalog


def names(resources: object) -> list[str]:
    return [each.name for each in resources]  # type: ignore[attr-defined]


class TestWatch:
    async def test_existing_resources_are_present_once_synced(self, store: MemoryStore) -> None:
        await store.create(an_agent())
        catalog = Catalog()
        task = asyncio.create_task(catalog.follow(store))

        await catalog.synced.wait()

        assert names(catalog.agents) == ["ai-developer"]
        task.cancel()

    async def test_later_changes_are_followed(self, store: MemoryStore, catalog: Catalog) -> None:
        created = await store.create(an_instruction(content="old"))
        await store.update(replace(created, spec=replace(created.spec, content="new")))
        await eventually(lambda: [each.spec.content for each in catalog.instructions] == ["new"])

        await store.delete(AiInstruction, created.name)
        await eventually(lambda: catalog.instruction(created.name) is None)


class TestOwnWrites:
    async def test_a_written_resource_is_present_before_the_watch_reports_it(self, store: MemoryStore) -> None:
        catalog = Catalog()
        catalog.put(await store.create(an_agent()))
        assert names(catalog.agents) == ["ai-developer"]

    async def test_a_deleted_resource_stays_absent_when_the_watch_reports_it_late(
        self, store: MemoryStore, catalog: Catalog
    ) -> None:
        created = await store.create(an_agent())  # the watch has yet to deliver it
        catalog.put(created)
        await store.delete(AiAgent, created.name)
        catalog.remove(created)
        other = await store.create(an_agent("other"))

        await eventually(lambda: catalog.agent(other.name) is not None)

        assert names(catalog.agents) == ["other"]

    def test_an_older_version_changes_nothing(self) -> None:
        agent = an_agent()
        newer = replace(agent, metadata=replace(agent.metadata, resource_version="10"))
        catalog = catalog_of(newer)

        catalog.put(replace(agent, metadata=replace(agent.metadata, resource_version="9")))

        assert catalog.agent(agent.name) is newer

    def test_removal_of_an_old_resource_leaves_a_new_one_of_its_name(self) -> None:
        old = an_agent()
        new = replace(old, metadata=replace(old.metadata, uid="another", resource_version="5"))
        catalog = catalog_of(old, new)

        catalog.remove(old)

        assert catalog.agent(old.name) is new


class TestTriggerNames:
    def test_an_agent_is_found_by_its_trigger_name(self) -> None:
        agent = an_agent(trigger_name="developer")
        assert catalog_of(agent).agents_by_trigger_name == {"developer": agent}

    def test_the_oldest_of_several_agents_has_a_shared_trigger_name_and_a_warning_is_logged_once(self) -> None:
        old, young = an_agent("z"), an_agent("a", trigger_name="z", created_at=NOON + timedelta(hours=1))
        catalog = catalog_of(young, old)

        with capture_logs() as logs:
            assert [catalog.agents_by_trigger_name for _ in range(3)] == [{"z": old}] * 3

        assert [(line["agent"], "'z'" in line["reason"]) for line in logs] == [("a", True)]


class TestInstructions:
    def test_global_instructions_come_by_priority_then_the_agents_own_in_order(self) -> None:
        catalog = catalog_of(
            an_instruction("late", scope=Scope.GLOBAL, priority=9),
            an_instruction("early", scope=Scope.GLOBAL, priority=-1),
            an_instruction("b"),
            an_instruction("a"),
            an_instruction("of-another"),
        )
        assert names(catalog.instructions_of(an_agent(instructions=("b", "a")))) == ["early", "late", "b", "a"]

    def test_each_instruction_appears_once(self) -> None:
        catalog = catalog_of(an_instruction("everyone", scope=Scope.GLOBAL), an_instruction("a"))
        agent = an_agent(instructions=("a", "everyone", "a"))
        assert names(catalog.instructions_of(agent)) == ["everyone", "a"]

    def test_a_missing_instruction_is_ignored_and_logged(self) -> None:
        catalog = catalog_of(an_instruction("a"))
        with capture_logs() as logs:
            assert names(catalog.instructions_of(an_agent(instructions=("gone", "a")))) == ["a"]
        assert "'gone'" in logs[0]["reason"]


class TestAiConfig:
    def test_only_the_ai_config_named_default_is_used(self) -> None:
        other = AiConfig(metadata=Metadata(name="other", resource_version="1"), spec=AiConfigSpec(model="opus"))
        assert catalog_of(other).ai_config == AiConfigSpec()

        default = replace(other, metadata=replace(other.metadata, name="default"))
        assert catalog_of(other, default).ai_config.model == "opus"
