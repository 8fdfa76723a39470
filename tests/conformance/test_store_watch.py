"""The contract of every Store (labrats/ports.py): watching resources."""

import asyncio

import pytest

from labrats.model.ai_model import AiModel
from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict
from labrats.model.job import Job
from labrats.ports import Change, Changed, Deleted, Store, Synced
from tests.conformance.store_resources import a_job, a_model, a_secret, add_a_slot, with_slots
from tests.support.waiting import DEADLINE_SECONDS
from tests.support.watch_recorder import record_watch


async def test_a_watch_without_resources_is_synced_at_once(store: Store) -> None:
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        assert seen.changes == [Synced()]


async def test_a_watch_reports_existing_resources_then_synced_then_changes_in_order(store: Store) -> None:
    opus, haiku = await store.create(a_model("opus")), await store.create(a_model("haiku"))
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        assert seen.changes[-1] == Synced()
        assert {change.resource.name: change.resource for change in seen.resource_changes} == {
            "haiku": haiku,
            "opus": opus,
        }

        seen.changes.clear()
        sonnet = await store.create(a_model("sonnet"))
        await seen.until(lambda: len(seen.changes) == 1)
        grown = await store.update(with_slots(opus, 7))
        await seen.until(lambda: len(seen.changes) == 2)
        await store.delete(AiModel, "haiku")
        await seen.until(lambda: len(seen.changes) == 3)

        assert seen.resource_changes[:2] == [Changed(sonnet), Changed(grown)]
        assert isinstance(seen.changes[2], Deleted)
        assert seen.changes[2].resource.spec == haiku.spec
        assert seen.changes[2].resource.metadata.uid == haiku.metadata.uid


@pytest.mark.parametrize("count", [99, 100, 101, 250])
async def test_a_watch_reports_any_number_of_existing_resources(store: Store, count: int) -> None:
    names = [f"model-{n:03}" for n in range(count)]
    await asyncio.gather(*(store.create(a_model(name)) for name in names))
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        assert sorted(change.resource.name for change in seen.resource_changes) == names


async def test_a_watch_reports_only_its_kind(store: Store) -> None:
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        await store.create(a_secret("secret"))
        await store.create(a_model("opus"))
        await seen.until(lambda: "opus" in seen.current)
        assert [change.resource.name for change in seen.resource_changes] == ["opus"]


async def test_a_watch_reports_parts_and_their_deletion(store: Store) -> None:
    async with record_watch(store, Secret) as seen:
        await seen.until(lambda: seen.synced)
        await store.create(a_job("ir-00000001"), [a_secret("git-1")])
        await seen.until(lambda: "git-1" in seen.current)
        await store.delete(Job, "ir-00000001")
        await seen.until(lambda: not seen.current)


async def test_a_watch_does_not_report_failed_writes(store: Store) -> None:
    stale = await store.create(a_model("opus", slots=1))
    await store.create(a_secret("taken"))
    current = await store.update(with_slots(stale, 2))
    async with record_watch(store, AiModel) as models, record_watch(store, Job) as jobs:
        await models.until(lambda: models.synced)
        await jobs.until(lambda: jobs.synced)
        for failing in (
            store.update(with_slots(stale, 3)),
            store.create(a_model("opus", slots=4)),
            store.delete(AiModel, "opus", stale.metadata.resource_version),
            store.create(a_job("ir-00000001"), [a_secret("taken")]),
        ):
            with pytest.raises(Conflict):
                await failing
        await store.create(a_model("last"))
        await models.until(lambda: "last" in models.current)
        assert models.current["opus"] == current
        assert [change.resource.spec.slots for change in models.resource_changes] == [2, 1]
        last = await store.create(a_job("ir-00000002"))
        await jobs.until(lambda: "ir-00000002" in jobs.current)
        assert jobs.current == {"ir-00000002": last}


async def test_a_watch_distinguishes_a_deleted_resource_from_a_new_one_of_the_same_name(store: Store) -> None:
    await store.create(a_model("opus", slots=1))
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        await store.delete(AiModel, "opus")
        successor = await store.create(a_model("opus", slots=2))
        await seen.until(lambda: seen.current == {"opus": successor})
        assert [type(change) for change in seen.changes] == [Changed, Synced, Deleted, Changed]


async def test_watchers_that_begin_at_different_times_end_with_the_same_state(store: Store) -> None:
    async def write(name: str) -> None:
        for _ in range(3):
            model = await store.create(a_model(name, slots=0))
            for slots in range(1, 4):
                model = await store.update(with_slots(model, slots))
            await store.delete(AiModel, name)
        await store.create(a_model(name, slots=9))

    await asyncio.gather(*(store.create(a_model(f"old-{n:03}")) for n in range(150)))
    async with asyncio.TaskGroup() as writers, record_watch(store, AiModel) as first:
        for n in range(8):
            writers.create_task(write(f"early-{n}"))
        await first.until(lambda: first.synced)
        for n in range(8):
            writers.create_task(write(f"late-{n}"))
        async with record_watch(store, AiModel) as second:
            await second.until(lambda: sum(model.spec.slots == 9 for model in second.current.values()) == 16)
            await first.until(lambda: first.current == second.current)
            assert list(first.current.values()) == await store.list(AiModel)


async def test_a_watch_never_reports_an_older_version_after_a_newer_one(store: Store) -> None:
    await asyncio.gather(*(store.create(a_model(f"model-{n:03}", slots=0)) for n in range(150)))

    async def write(name: str) -> None:
        for _ in range(20):
            await add_a_slot(store, name)

    async with asyncio.TaskGroup() as writers:
        for n in range(0, 150, 10):
            writers.create_task(write(f"model-{n:03}"))
        async with record_watch(store, AiModel) as seen:
            await seen.until(lambda: sum(model.spec.slots for model in seen.current.values()) == 15 * 20)
    for n in range(150):
        slots = [each.resource.spec.slots for each in seen.resource_changes if each.resource.name == f"model-{n:03}"]
        assert slots == sorted(set(slots))


async def test_an_idle_watcher_delays_no_other_and_misses_nothing(store: Store) -> None:
    busy, doomed = await store.create(a_model("busy", slots=0)), await store.create(a_model("doomed"))
    lazy = store.watch(AiModel)
    while await anext(lazy) != Synced():
        pass
    for slots in range(1, 301):
        busy = await store.update(with_slots(busy, slots))
    await store.delete(AiModel, doomed.name)
    last = await store.create(a_model("last"))

    read: list[Change[AiModel]] = []
    while Changed(last) not in read:
        read.append(await asyncio.wait_for(anext(lazy), DEADLINE_SECONDS))
    assert Changed(busy) in read
    assert [change.resource.name for change in read if isinstance(change, Deleted)] == ["doomed"]


async def test_merged_changes_for_a_slow_watcher_are_ordered_by_the_last_one(store: Store) -> None:
    often, once = await store.create(a_model("often", slots=1)), await store.create(a_model("once", slots=1))
    slow = store.watch(AiModel)
    while await anext(slow) != Synced():
        pass
    often = await store.update(with_slots(often, 2))
    once = await store.update(with_slots(once, 2))
    often = await store.update(with_slots(often, 3))
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.current == {"often": often, "once": once})

    read: list[Change[AiModel]] = []
    while Changed(often) not in read or Changed(once) not in read:
        read.append(await asyncio.wait_for(anext(slow), DEADLINE_SECONDS))
    assert read.index(Changed(once)) < read.index(Changed(often))


async def test_a_closed_watch_does_not_affect_others(store: Store) -> None:
    async with record_watch(store, AiModel) as staying:
        async with record_watch(store, AiModel) as leaving:
            await leaving.until(lambda: leaving.synced)
        await staying.until(lambda: staying.synced)
        await store.create(a_model("opus"))
        await staying.until(lambda: "opus" in staying.current)
