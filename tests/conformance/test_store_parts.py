"""The contract of every Store (labrats/ports.py): parts of a resource."""

import pytest

from labrats.model.ai_model import AiModel
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import Conflict, NotFound
from labrats.model.job import Job
from labrats.ports import Store
from tests.conformance.store_resources import a_job, a_model, a_prompt, a_secret, until_gone


async def test_parts_are_created_with_their_owner(store: Store) -> None:
    job = await store.create(a_job("ir-00000001"), [a_prompt("ir-00000001-prompt"), a_secret("ir-00000001-git")])
    for part in (await store.get(ConfigMap, "ir-00000001-prompt"), await store.get(Secret, "ir-00000001-git")):
        assert part.metadata.owner is not None
        assert (part.metadata.owner.kind, part.metadata.owner.name) == ("InferenceRequest", job.name)
        assert part.metadata.owner.uid == job.metadata.uid
        assert part.metadata.uid
        assert part.metadata.resource_version


async def test_create_with_a_part_whose_name_is_taken_leaves_nothing(store: Store) -> None:
    await store.create(a_secret("taken"))
    with pytest.raises(Conflict, match="taken"):
        await store.create(a_job("ir-00000001"), [a_prompt("free"), a_secret("taken")])
    with pytest.raises(NotFound):
        await store.get(Job, "ir-00000001")
    with pytest.raises(NotFound):
        await store.get(ConfigMap, "free")
    assert (await store.get(Secret, "taken")).metadata.owner is None


async def test_two_parts_of_one_name_are_a_conflict(store: Store) -> None:
    with pytest.raises(Conflict, match="twice"):
        await store.create(a_job("ir-00000001"), [a_secret("twice"), a_secret("twice")])
    assert await store.list(Job) == []
    assert await store.list(Secret) == []


async def test_a_part_of_another_owner_is_not_replaced(store: Store) -> None:
    await store.create(a_job("ir-00000001"), [a_secret("taken")])
    existing = await store.get(Secret, "taken")
    with pytest.raises(Conflict, match="taken"):
        await store.create(a_job("ir-00000002"), [a_secret("taken")])
    assert await store.get(Secret, "taken") == existing
    with pytest.raises(NotFound):
        await store.get(Job, "ir-00000002")


async def test_a_deleted_resource_can_be_created_again_at_once_and_keeps_its_new_parts(store: Store) -> None:
    parts = [a_secret(f"part-{number:02}") for number in range(20)]
    await store.create(a_model("opus"), parts)
    await store.delete(AiModel, "opus")
    again = await store.create(a_model("opus"), parts)

    await store.create(a_model("later"), [a_secret("later")])
    await store.delete(AiModel, "later")
    await until_gone(store, Secret, "later")  # the removal of parts has progressed so far

    stored = await store.list(Secret)
    assert [part.name for part in stored] == [part.name for part in parts]
    assert {part.metadata.owner and part.metadata.owner.uid for part in stored} == {again.metadata.uid}


async def test_create_of_a_taken_name_creates_no_parts(store: Store) -> None:
    await store.create(a_job("ir-00000001"))
    with pytest.raises(Conflict, match="ir-00000001"):
        await store.create(a_job("ir-00000001"), [a_prompt("ir-00000001-prompt")])
    with pytest.raises(NotFound):
        await store.get(ConfigMap, "ir-00000001-prompt")


async def test_only_parts_are_deleted_with_their_owner(store: Store) -> None:
    await store.create(a_job("ir-00000001"), [a_prompt("prompt-1"), a_secret("git-1")])
    await store.create(a_job("ir-00000002"), [a_prompt("prompt-2")])
    await store.delete(Job, "ir-00000001")
    await until_gone(store, ConfigMap, "prompt-1")
    await until_gone(store, Secret, "git-1")
    await store.get(ConfigMap, "prompt-2")


async def test_a_part_may_be_deleted_before_its_owner(store: Store) -> None:
    await store.create(a_job("ir-00000001"), [a_secret("git-1")])
    await store.delete(Secret, "git-1")
    await store.get(Job, "ir-00000001")
    await store.delete(Job, "ir-00000001")
