"""The contract of every Store (labrats/ports.py): updating and deleting resources."""

import asyncio

import pytest

from labrats.model.ai_model import AiModel
from labrats.model.errors import Conflict, NotFound
from labrats.ports import Store
from tests.conformance.store_resources import a_model, add_a_slot, with_slots

# Updating


async def test_update_replaces_the_resource_and_returns_the_new_version(store: Store) -> None:
    created = await store.create(a_model("opus", slots=1))
    updated = await store.update(with_slots(created, 2))
    assert updated.spec.slots == 2
    assert int(updated.metadata.resource_version) > int(created.metadata.resource_version)
    assert updated.metadata.uid == created.metadata.uid
    assert updated.metadata.created_at == created.metadata.created_at
    assert await store.get(AiModel, "opus") == updated


async def test_update_of_a_stale_version_is_a_conflict_and_changes_nothing(store: Store) -> None:
    stale = await store.create(a_model("opus", slots=1))
    current = await store.update(with_slots(stale, 2))
    with pytest.raises(Conflict, match="opus"):
        await store.update(with_slots(stale, 3))
    assert await store.get(AiModel, "opus") == current


async def test_update_of_a_deleted_resource_raises_not_found(store: Store) -> None:
    created = await store.create(a_model("opus"))
    await store.delete(AiModel, "opus")
    with pytest.raises(NotFound, match="opus"):
        await store.update(created)


async def test_one_of_many_concurrent_updates_of_one_version_succeeds(store: Store) -> None:
    created = await store.create(a_model("opus", slots=0))
    outcomes = await asyncio.gather(
        *(store.update(with_slots(created, slots)) for slots in range(1, 9)), return_exceptions=True
    )
    winners = [outcome for outcome in outcomes if isinstance(outcome, AiModel)]
    assert [type(outcome) for outcome in outcomes].count(Conflict) == 7
    assert winners == [await store.get(AiModel, "opus")]


async def test_no_update_of_64_concurrent_writers_is_lost(store: Store) -> None:
    await store.create(a_model("shared", slots=0))
    await asyncio.gather(*(add_a_slot(store, "shared") for _ in range(64)))
    assert (await store.get(AiModel, "shared")).spec.slots == 64


async def test_64_concurrent_writers_of_different_resources_all_succeed(store: Store) -> None:
    async def write(name: str) -> None:
        model = await store.create(a_model(name, slots=0))
        for slots in range(1, 6):
            model = await store.update(with_slots(model, slots))
            assert await store.get(AiModel, name) == model

    await asyncio.gather(*(write(f"model-{n}") for n in range(64)))
    assert [model.spec.slots for model in await store.list(AiModel)] == [5] * 64


# Deleting


async def test_a_deleted_resource_is_not_found_and_its_name_is_free(store: Store) -> None:
    first = await store.create(a_model("opus"))
    await store.delete(AiModel, "opus")
    with pytest.raises(NotFound):
        await store.get(AiModel, "opus")
    assert await store.list(AiModel) == []
    second = await store.create(a_model("opus"))
    assert second.metadata.uid != first.metadata.uid
    with pytest.raises(Conflict):
        await store.update(first)


async def test_delete_of_a_missing_resource_raises_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="opus"):
        await store.delete(AiModel, "opus")


async def test_delete_of_a_stale_version_is_a_conflict(store: Store) -> None:
    stale = await store.create(a_model("opus"))
    current = await store.update(with_slots(stale, 2))
    with pytest.raises(Conflict, match="opus"):
        await store.delete(AiModel, "opus", stale.metadata.resource_version)
    assert await store.get(AiModel, "opus") == current
    await store.delete(AiModel, "opus", current.metadata.resource_version)
    with pytest.raises(NotFound):
        await store.get(AiModel, "opus")
