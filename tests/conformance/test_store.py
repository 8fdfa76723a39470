"""What every Store promises (labrats/ports.py), sentence by sentence."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from labrats.model.agent import AiAgent
from labrats.model.ai_model import AiModel, AiModelSpec, Prices
from labrats.model.config import ConfigLayer, JobConfig, resolve_config
from labrats.model.core_resources import API_KEY_LABEL, API_KEY_LABEL_VALUE, ConfigMap, Secret
from labrats.model.errors import Conflict, NotFound, Taken
from labrats.model.job import (
    AgentSession,
    FailedCode,
    Job,
    JobSpec,
    JobStatus,
    KeyReference,
    Outputs,
    Usage,
    WorkspaceSetup,
)
from labrats.model.phases import Phase
from labrats.model.record import Metadata, Resource
from labrats.ports import Change, Changed, Deleted, Store, Synced
from tests.support.builders import an_agent
from tests.support.waiting import DEADLINE_SECONDS
from tests.support.watch_recorder import record_watch

R = TypeVar("R", bound=Resource)


# Creating and reading


async def test_what_was_created_is_read_back(store: Store) -> None:
    created = await store.create(a_model("opus", slots=3))
    assert await store.get(AiModel, "opus") == created
    assert created.spec == a_model("opus", slots=3).spec


async def test_creating_sets_uid_version_and_time(store: Store) -> None:
    first, second = await store.create(a_model("first")), await store.create(a_model("second"))
    assert first.metadata.uid
    assert first.metadata.uid != second.metadata.uid
    assert first.metadata.resource_version
    assert first.metadata.created_at is not None
    assert first.metadata.created_at.utcoffset() == timedelta(0)


async def test_every_field_of_a_job_survives(store: Store) -> None:
    created = await store.create(replace(a_finished_job("ir-00000001"), status=JobStatus()))
    updated = await store.update(replace(created, status=a_finished_job("ir-00000001").status))
    assert await store.get(Job, "ir-00000001") == updated
    assert replace(updated, metadata=Metadata(name="")) == replace(
        a_finished_job("ir-00000001"), metadata=Metadata(name="")
    )
    assert updated.metadata.labels == {"team": "red"}
    assert updated.metadata.annotations == {"note": "by hand"}


async def test_what_does_not_exist_is_not_found(store: Store) -> None:
    await store.create(a_model("opus"))
    with pytest.raises(NotFound, match="haiku"):
        await store.get(AiModel, "haiku")
    with pytest.raises(NotFound, match="opus"):
        await store.get(Secret, "opus")


async def test_a_taken_name_is_a_conflict_that_names_it(store: Store) -> None:
    first = await store.create(a_model("opus", slots=1))
    with pytest.raises(Conflict, match="opus"):
        await store.create(a_model("opus", slots=2))
    assert await store.get(AiModel, "opus") == first


async def test_what_another_claims_is_taken_and_nothing_of_it_is_left(store: Store) -> None:
    first = await store.create(a_model("first"))
    with pytest.raises(Taken, match=r"'first' has the provider 'mock' with the model 'first'"):
        await store.create(with_name(first, "second"), [Secret(metadata=Metadata(name="part"))])
    assert await store.list(AiModel) == [first]
    assert await store.list(Secret) == []


async def test_of_many_who_claim_the_same_at_once_one_succeeds(store: Store) -> None:
    agents = [an_agent(f"agent-{number}", trigger_name="developer") for number in range(8)]
    outcomes = await asyncio.gather(*(store.create(agent) for agent in agents), return_exceptions=True)
    winners = [outcome for outcome in outcomes if isinstance(outcome, AiAgent)]
    assert [type(outcome) for outcome in outcomes].count(Taken) == 7
    assert winners == await store.list(AiAgent)


async def test_an_update_may_not_claim_what_another_has(store: Store) -> None:
    first = await store.create(a_model("first"))
    second = await store.create(a_model("second", slots=3))
    with pytest.raises(Taken, match="first"):
        await store.update(replace(second, spec=first.spec))
    assert (await store.get(AiModel, "second")).spec == second.spec


async def test_of_two_who_come_to_claim_the_same_at_once_one_succeeds(store: Store) -> None:
    models = [await store.create(a_model(f"model-{number}")) for number in range(4)]
    changed = [replace(model, spec=replace(model.spec, model="wanted")) for model in models]
    outcomes = await asyncio.gather(
        *(store.update(model) for model in changed),
        store.create(with_name(changed[0], "new")),
        return_exceptions=True,
    )
    winners = [outcome for outcome in outcomes if isinstance(outcome, AiModel)]
    assert [type(outcome) for outcome in outcomes].count(Taken) == 4
    assert winners == [model for model in await store.list(AiModel) if model.spec.model == "wanted"]


async def test_what_was_given_up_may_be_claimed(store: Store) -> None:
    first = await store.create(a_model("first"))
    await store.update(replace(first, spec=replace(first.spec, model="other")))
    second = await store.create(with_name(first, "second"))
    await store.delete(AiModel, "second")
    assert (await store.create(with_name(second, "third"))).spec == first.spec


async def test_a_name_is_taken_only_within_its_kind(store: Store) -> None:
    await store.create(a_model("opus"))
    await store.create(Secret(metadata=Metadata(name="opus")))


async def test_of_many_who_create_one_name_one_succeeds(store: Store) -> None:
    attempts = [store.create(a_model("opus", slots=slots)) for slots in range(8)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    winners = [outcome for outcome in outcomes if isinstance(outcome, AiModel)]
    assert [type(outcome) for outcome in outcomes].count(Conflict) == 7
    assert winners == [await store.get(AiModel, "opus")]


async def test_a_failing_write_does_no_harm_to_those_beside_it(store: Store) -> None:
    taken = await store.create(a_model("taken"))
    outcomes = await asyncio.gather(
        store.create(a_model("left")),
        store.create(a_model("taken", slots=9)),
        store.update(replace(taken, metadata=replace(taken.metadata, name="missing"))),
        store.delete(AiModel, "missing"),
        store.create(a_model("right")),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [AiModel, Conflict, NotFound, NotFound, AiModel]
    assert [model.name for model in await store.list(AiModel)] == ["left", "right", "taken"]
    assert await store.get(AiModel, "taken") == taken


async def test_get_many_keeps_the_order_asked_for_and_leaves_out_what_is_missing(store: Store) -> None:
    created = {name: await store.create(a_model(name)) for name in ("a", "b", "c")}
    assert await store.get_many(AiModel, ["c", "missing", "a"]) == [created["c"], created["a"]]
    assert await store.get_many(AiModel, []) == []


async def test_get_many_takes_many_names(store: Store) -> None:
    names = [f"model-{n:03}" for n in range(250)]
    await asyncio.gather(*(store.create(a_model(name)) for name in names))
    assert [model.name for model in await store.get_many(AiModel, names)] == names


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
async def test_list_has_all_of_a_kind_ordered_by_name(store: Store, count: int) -> None:
    names = [f"model-{n:03}" for n in range(count)]
    await asyncio.gather(*(store.create(a_model(name)) for name in reversed(names)))
    await store.create(Secret(metadata=Metadata(name="model-of-another-kind")))
    listed = await store.list(AiModel)
    assert [model.name for model in listed] == names
    assert listed == await store.get_many(AiModel, names)


async def test_list_by_labels_has_what_carries_all_of_them(store: Store) -> None:
    await store.create(a_secret("key", {API_KEY_LABEL: API_KEY_LABEL_VALUE, "team": "red"}))
    await store.create(a_secret("other-value", {API_KEY_LABEL: "something-else", "team": "red"}))
    await store.create(a_secret("unlabelled", {}))

    async def names(labels: Mapping[str, str] | None) -> list[str]:
        return [secret.name for secret in await store.list(Secret, labels)]

    assert await names({API_KEY_LABEL: API_KEY_LABEL_VALUE}) == ["key"]
    assert await names({"team": "red"}) == ["key", "other-value"]
    assert await names({"team": "red", API_KEY_LABEL: API_KEY_LABEL_VALUE}) == ["key"]
    assert await names({"team": "blue"}) == []
    assert await names({}) == await names(None) == ["key", "other-value", "unlabelled"]


# Parts


async def test_parts_are_created_with_their_owner(store: Store) -> None:
    job = await store.create(a_job("ir-00000001"), [a_prompt("ir-00000001-prompt"), a_secret("ir-00000001-git")])
    for part in (await store.get(ConfigMap, "ir-00000001-prompt"), await store.get(Secret, "ir-00000001-git")):
        assert part.metadata.owner is not None
        assert (part.metadata.owner.kind, part.metadata.owner.name) == ("InferenceRequest", job.name)
        assert part.metadata.owner.uid == job.metadata.uid
        assert part.metadata.uid
        assert part.metadata.resource_version


async def test_a_taken_part_leaves_no_trace_of_the_rest(store: Store) -> None:
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


async def test_a_part_of_another_is_not_taken_from_it(store: Store) -> None:
    await store.create(a_job("ir-00000001"), [a_secret("taken")])
    theirs = await store.get(Secret, "taken")
    with pytest.raises(Conflict, match="taken"):
        await store.create(a_job("ir-00000002"), [a_secret("taken")])
    assert await store.get(Secret, "taken") == theirs
    with pytest.raises(NotFound):
        await store.get(Job, "ir-00000002")


async def test_what_was_deleted_is_made_again_at_once_with_its_parts_and_keeps_them(store: Store) -> None:
    parts = [a_secret(f"part-{number:02}") for number in range(20)]
    await store.create(a_model("opus"), parts)
    await store.delete(AiModel, "opus")
    again = await store.create(a_model("opus"), parts)

    await store.create(a_model("later"), [a_secret("later")])
    await store.delete(AiModel, "later")
    await until_gone(store, Secret, "later")  # whoever removes parts has got so far

    kept = await store.list(Secret)
    assert [part.name for part in kept] == [part.name for part in parts]
    assert {part.metadata.owner and part.metadata.owner.uid for part in kept} == {again.metadata.uid}


async def test_a_taken_name_makes_no_parts(store: Store) -> None:
    await store.create(a_job("ir-00000001"))
    with pytest.raises(Conflict, match="ir-00000001"):
        await store.create(a_job("ir-00000001"), [a_prompt("ir-00000001-prompt")])
    with pytest.raises(NotFound):
        await store.get(ConfigMap, "ir-00000001-prompt")


async def test_parts_are_deleted_with_their_owner_and_nothing_else_is(store: Store) -> None:
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


# Updating


async def test_update_replaces_and_returns_the_new_version(store: Store) -> None:
    created = await store.create(a_model("opus", slots=1))
    updated = await store.update(with_slots(created, 2))
    assert updated.spec.slots == 2
    assert int(updated.metadata.resource_version) > int(created.metadata.resource_version)
    assert updated.metadata.uid == created.metadata.uid
    assert updated.metadata.created_at == created.metadata.created_at
    assert await store.get(AiModel, "opus") == updated


async def test_a_stale_update_is_a_conflict_and_changes_nothing(store: Store) -> None:
    stale = await store.create(a_model("opus", slots=1))
    current = await store.update(with_slots(stale, 2))
    with pytest.raises(Conflict, match="opus"):
        await store.update(with_slots(stale, 3))
    assert await store.get(AiModel, "opus") == current


async def test_updating_what_is_gone_is_not_found(store: Store) -> None:
    created = await store.create(a_model("opus"))
    await store.delete(AiModel, "opus")
    with pytest.raises(NotFound, match="opus"):
        await store.update(created)


async def test_of_many_who_update_one_version_one_succeeds(store: Store) -> None:
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


async def test_64_concurrent_writers_do_not_disturb_each_other(store: Store) -> None:
    async def write(name: str) -> None:
        model = await store.create(a_model(name, slots=0))
        for slots in range(1, 6):
            model = await store.update(with_slots(model, slots))
            assert await store.get(AiModel, name) == model

    await asyncio.gather(*(write(f"model-{n}") for n in range(64)))
    assert [model.spec.slots for model in await store.list(AiModel)] == [5] * 64


# Deleting


async def test_what_was_deleted_is_gone_and_its_name_is_free(store: Store) -> None:
    first = await store.create(a_model("opus"))
    await store.delete(AiModel, "opus")
    with pytest.raises(NotFound):
        await store.get(AiModel, "opus")
    assert await store.list(AiModel) == []
    second = await store.create(a_model("opus"))
    assert second.metadata.uid != first.metadata.uid
    with pytest.raises(Conflict):
        await store.update(first)


async def test_deleting_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="opus"):
        await store.delete(AiModel, "opus")


async def test_deleting_a_stale_version_is_a_conflict(store: Store) -> None:
    stale = await store.create(a_model("opus"))
    current = await store.update(with_slots(stale, 2))
    with pytest.raises(Conflict, match="opus"):
        await store.delete(AiModel, "opus", stale.metadata.resource_version)
    assert await store.get(AiModel, "opus") == current
    await store.delete(AiModel, "opus", current.metadata.resource_version)
    with pytest.raises(NotFound):
        await store.get(AiModel, "opus")


# Watching


async def test_a_watch_of_nothing_is_synced_at_once(store: Store) -> None:
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        assert seen.changes == [Synced()]


async def test_a_watch_tells_what_exists_then_synced_then_every_change_in_order(store: Store) -> None:
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
async def test_a_watch_tells_all_that_exists_however_many(store: Store, count: int) -> None:
    names = [f"model-{n:03}" for n in range(count)]
    await asyncio.gather(*(store.create(a_model(name)) for name in names))
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        assert sorted(change.resource.name for change in seen.resource_changes) == names


async def test_a_watch_tells_of_its_kind_only(store: Store) -> None:
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        await store.create(a_secret("secret"))
        await store.create(a_model("opus"))
        await seen.until(lambda: "opus" in seen.current)
        assert [change.resource.name for change in seen.resource_changes] == ["opus"]


async def test_a_watch_tells_of_parts_and_of_their_end(store: Store) -> None:
    async with record_watch(store, Secret) as seen:
        await seen.until(lambda: seen.synced)
        await store.create(a_job("ir-00000001"), [a_secret("git-1")])
        await seen.until(lambda: "git-1" in seen.current)
        await store.delete(Job, "ir-00000001")
        await seen.until(lambda: not seen.current)


async def test_a_watch_tells_nothing_of_writes_that_failed(store: Store) -> None:
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


async def test_a_deleted_resource_and_its_successor_of_the_same_name_are_told_apart(store: Store) -> None:
    await store.create(a_model("opus", slots=1))
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        await store.delete(AiModel, "opus")
        successor = await store.create(a_model("opus", slots=2))
        await seen.until(lambda: seen.current == {"opus": successor})
        assert [type(change) for change in seen.changes] == [Changed, Synced, Deleted, Changed]


async def test_watchers_see_the_same_whenever_they_begin(store: Store) -> None:
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


async def test_a_resource_never_goes_back_in_time_for_a_watcher(store: Store) -> None:
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


async def test_a_watcher_that_does_not_read_delays_nobody_and_misses_nothing(store: Store) -> None:
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


async def test_changes_that_a_slow_watcher_is_told_as_one_keep_the_place_of_the_last(store: Store) -> None:
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


async def test_a_watcher_that_leaves_disturbs_no_other(store: Store) -> None:
    async with record_watch(store, AiModel) as staying:
        async with record_watch(store, AiModel) as leaving:
            await leaving.until(lambda: leaving.synced)
        await staying.until(lambda: staying.synced)
        await store.create(a_model("opus"))
        await staying.until(lambda: "opus" in staying.current)


# Sizes and scripts


async def test_a_prompt_of_900_kib_is_kept(store: Store) -> None:
    text = "Überprüfe die Änderung. " * 36_864
    assert len(text.encode()) >= 900 * 1024
    await store.create(a_job("ir-00000001"), [a_prompt("prompt-1", text)])
    assert (await store.get(ConfigMap, "prompt-1")).data["prompt"] == text


@pytest.mark.parametrize(
    "text", ["", "Grüße aus Köln", "實驗室的老鼠", "🐀🧪", "e\u0301 \u2028 \u200f \t\r\n", '"\\/{}<script>']
)
async def test_any_text_is_kept_as_it_is(store: Store, text: str) -> None:
    await store.create(a_prompt("prompt-1", text))
    assert (await store.get(ConfigMap, "prompt-1")).data["prompt"] == text


# What the tests above are written in


async def until_gone(store: Store, kind: type[R], name: str) -> None:
    """Wait until there is no such resource."""
    async with record_watch(store, kind) as seen:
        await seen.until(lambda: seen.synced and name not in seen.current)


async def add_a_slot(store: Store, name: str) -> None:
    """Read, decide, write, and again when somebody else wrote first."""
    while True:
        model = await store.get(AiModel, name)
        try:
            await store.update(with_slots(model, model.spec.slots + 1))
        except Conflict:
            continue
        return


def a_model(name: str, *, slots: int = 1) -> AiModel:
    spec = AiModelSpec(provider="mock", model=name, slots=slots, prices=Prices(input=0.25))
    return AiModel(metadata=Metadata(name=name), spec=spec)


def with_name(model: AiModel, name: str) -> AiModel:
    return replace(model, metadata=Metadata(name=name))


def with_slots(model: AiModel, slots: int) -> AiModel:
    return replace(model, spec=replace(model.spec, slots=slots))


def a_job(name: str) -> Job:
    return Job(metadata=Metadata(name=name), spec=JobSpec(source="manual", type="code-review", prompt="Review this."))


def a_prompt(name: str, text: str = "Review this.") -> ConfigMap:
    return ConfigMap(metadata=Metadata(name=name), data={"prompt": text})


def a_secret(name: str, labels: dict[str, str] | None = None) -> Secret:
    return Secret(metadata=Metadata(name=name, labels=labels or {}), data={"password": "test-secret-password"})


def a_finished_job(name: str) -> Job:
    """One with a value in every field."""
    config = JobConfig(provider="claude", model="opus", effort="high", fast=True, timeout_ms=60_000, max_cost_usd=1.5)
    noon = datetime(2030, 1, 2, 12, 0, 0, tzinfo=UTC)
    metadata: dict[str, Any] = {"repo": "octo/rats", "nested": {"list": [1, 2.5, None, True, "ü"]}, "": ""}
    return Job(
        metadata=Metadata(name=name, labels={"team": "red"}, annotations={"note": "by hand"}),
        spec=JobSpec(
            source="github",
            type="implement-issue",
            prompt_ref=KeyReference(name=f"{name}-prompt", key="prompt"),
            priority=1.5,
            workspace_setup=WorkspaceSetup(
                git_repo="https://git.example/rats.git", git_ref="main", git_depth=1, credentials_ref=f"{name}-git"
            ),
            config=config,
            resolved=resolve_config([ConfigLayer("request", config)]),
            metadata=metadata,
            owner="key-1",
        ),
        status=JobStatus(
            phase=Phase.FAILED,
            attempts=2,
            slot="opus",
            started_at=noon,
            deadline_at=noon + timedelta(hours=1),
            finished_at=noon + timedelta(minutes=5),
            not_before=noon - timedelta(minutes=1),
            cancel_requested_at=noon + timedelta(minutes=4),
            failed_code=FailedCode.AGENT_ERROR,
            failed_reason="the agent gave up",
            result={"found": ["a", "b"]},
            result_cut=True,
            logs=("one", "two ü"),
            usage=Usage(input_tokens=10, output_tokens=5, cache_read_tokens=1, cost_usd=0.01, turns=2),
            outputs=Outputs(branch="rats/1", commit="c0ffee", pull_request_url="https://git.example/rats/pulls/1"),
            session=AgentSession(provider="claude", id="0b6c7c5e-3f0a-4b7e-9c55-3d1f6a2b8e90", attempt=1),
        ),
    )
