"""Compare-and-set on the in-memory store."""

import asyncio

import pytest
from msgspec.structs import replace

from labrats.model.ai_model import AiModel
from labrats.model.errors import NotFound, Taken
from labrats.ports import compare_and_set
from tests.fakes.store import MemoryStore
from tests.support.builders import an_ai_model

NAME = "mock-1"


def with_one_more_slot(model: AiModel) -> AiModel:
    return replace(model, spec=replace(model.spec, slots=model.spec.slots + 1))


async def add_slot(store: MemoryStore) -> tuple[AiModel, AiModel]:
    return await compare_and_set(store, lambda: store.get(AiModel, NAME), with_one_more_slot)


async def test_the_change_is_stored_and_both_versions_are_returned() -> None:
    store = MemoryStore()
    created = await store.create(an_ai_model(NAME, slots=1))
    before, after = await add_slot(store)
    assert (before, after) == (created, await store.get(AiModel, NAME))
    assert after.spec.slots == 2


async def test_changes_of_concurrent_writers_all_count() -> None:
    store = MemoryStore()
    await store.create(an_ai_model(NAME, slots=0))
    await asyncio.gather(*(add_slot(store) for _ in range(10)))
    assert (await store.get(AiModel, NAME)).spec.slots == 10


async def test_the_same_object_is_not_stored() -> None:
    store = MemoryStore()
    created = await store.create(an_ai_model(NAME))
    before, after = await compare_and_set(store, lambda: store.get(AiModel, NAME), lambda model: model)
    assert before is after
    assert (await store.get(AiModel, NAME)).metadata.resource_version == created.metadata.resource_version


async def test_a_resource_without_a_version_is_created() -> None:
    store = MemoryStore()

    async def read() -> AiModel:
        return an_ai_model(NAME, slots=1)

    _, created = await compare_and_set(store, read, with_one_more_slot)
    assert created == await store.get(AiModel, NAME)


async def test_an_error_of_the_change_stores_nothing() -> None:
    store = MemoryStore()
    created = await store.create(an_ai_model(NAME))

    def refuse(model: AiModel) -> AiModel:
        raise ValueError(model.name)

    with pytest.raises(ValueError, match=NAME):
        await compare_and_set(store, lambda: store.get(AiModel, NAME), refuse)
    assert await store.get(AiModel, NAME) == created


async def test_a_missing_resource_is_not_found() -> None:
    with pytest.raises(NotFound):
        await add_slot(MemoryStore())


async def test_a_claim_that_another_resource_has_is_not_tried_again() -> None:
    store = MemoryStore()
    await store.create(an_ai_model("other", model="large"))
    await store.create(an_ai_model(NAME))
    with pytest.raises(Taken):
        await compare_and_set(
            store,
            lambda: store.get(AiModel, NAME),
            lambda model: replace(model, spec=replace(model.spec, model="large")),
        )
