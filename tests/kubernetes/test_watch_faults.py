"""Watches of the Kubernetes store on a connection with faults: no change is lost."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web
from msgspec.structs import replace

from labrats.api.auth.keys import MAX_SILENCE_SECONDS
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.reflector import FREQUENT, WatchTimeouts
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.model.ai_model import AiModel
from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict, NotFound
from labrats.ports import Changed, Deleted, Store
from tests.cluster.proxy import Break, Cut, Fault, FaultyProxy, Refuse, is_list, is_watch
from tests.support.builders import an_ai_model
from tests.support.waiting import eventually
from tests.support.watch_recorder import record_watch

pytestmark = pytest.mark.kubernetes

IMPATIENT = WatchTimeouts(silence_seconds=0.5, longest_pause=0.2)
"""Timeouts that are short enough for tests."""

MANY = 60
"""Number of faults in the long test."""


def a_model(name: str) -> AiModel:
    """Return an AiModel for a model of its own, since no two may have the same model."""
    return an_ai_model(name, model=name)


@pytest.fixture
async def store(api_client: ApiClient, namespace: str) -> AsyncIterator[Store]:
    """A store on a connection without faults."""
    async with KubernetesStore.open(api_client, namespace) as store:
        yield store


@pytest.fixture
async def proxy(api_client: ApiClient, tmp_path: Path) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy.open(api_client, tmp_path) as proxy:
        yield proxy


@pytest.fixture
async def disturbed(proxy: FaultyProxy, namespace: str) -> AsyncIterator[Store]:
    """A store whose watches meet faults."""
    async with KubernetesStore.open(proxy.client, namespace, timeouts=IMPATIENT) as store:
        yield store


@pytest.mark.parametrize("how", [how for how in Cut if how is not Cut.EXPIRED])
async def test_a_broken_watch_resumes_at_its_version(
    store: Store, disturbed: Store, proxy: FaultyProxy, how: Cut
) -> None:
    faults = (Break(how, after_lines=1), Break(how), Break(how, after_lines=1))
    async with record_watch(disturbed, AiModel) as seen, proxy.faults(is_watch, *faults):
        await seen.until(lambda: seen.synced)
        created = [await store.create(a_model(f"model-{number}")) for number in range(4)]
        await seen.until(lambda: len(seen.current) == 4)
    assert seen.resource_changes == [Changed(each) for each in created]
    assert proxy.count(is_list) == 1


@pytest.mark.parametrize(
    "faults",
    [[Refuse(410), Refuse(410)], [Break(Cut.EXPIRED), Break(Cut.EXPIRED)], [Break(Cut.EXPIRED, after_lines=1)]],
)
async def test_an_expired_watch_lists_again_and_repeats_nothing(
    store: Store, disturbed: Store, proxy: FaultyProxy, faults: list[Fault]
) -> None:
    old = await store.create(a_model("old"))
    async with record_watch(disturbed, AiModel) as seen:
        async with proxy.faults(is_watch, *faults):
            await seen.until(lambda: seen.synced)
            new = [await store.create(a_model(f"new-{number}")) for number in range(4)]
        await eventually(lambda: proxy.count(is_list) == 1 + len(faults))
        await seen.until(lambda: len(seen.current) == 5)
    assert seen.resource_changes == [Changed(each) for each in (old, *new)]


async def test_changes_during_a_silent_watch_are_reported(store: Store, disturbed: Store, proxy: FaultyProxy) -> None:
    same, changed, deleted, replaced = [
        await store.create(a_model(name)) for name in ("same", "changed", "deleted", "replaced")
    ]
    silence = proxy.faults(is_watch, Break(Cut.SILENCE), Refuse(410))
    async with record_watch(disturbed, AiModel) as seen, silence:
        await seen.until(lambda: seen.synced)
        seen.changes.clear()
        changed = await store.update(replace(changed, spec=replace(changed.spec, slots=7)))
        await store.delete(AiModel, "deleted")
        await store.delete(AiModel, "replaced")
        successor = await store.create(a_model("replaced"))
        new = await store.create(a_model("new"))
        await seen.until(lambda: "new" in seen.current)
    deleted_uids = {change.resource.metadata.uid for change in seen.changes if isinstance(change, Deleted)}
    assert deleted_uids == {deleted.metadata.uid, replaced.metadata.uid}
    assert seen.current == {"changed": changed, "new": new, "replaced": successor, "same": same}
    assert Changed(same) not in seen.changes


async def test_a_leaders_watch_includes_all_writes_before_its_leadership(
    store: Store, proxy: FaultyProxy, namespace: str
) -> None:
    patient = KubernetesStore.open(proxy.client, namespace)
    async with patient as own, proxy.faults(is_watch, Break(Cut.SILENCE)), record_watch(own, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        await eventually(lambda: proxy.count(is_watch) == 1)
        by_another = await store.create(an_ai_model("by-another"))

        since = time.monotonic()
        async with own.as_leader(proxy.client, since) as leader, record_watch(leader, AiModel) as seen_by_leader:
            await seen_by_leader.until(lambda: seen_by_leader.synced)
            assert seen_by_leader.current == {"by-another": by_another}
            await seen.until(lambda: seen.current == seen_by_leader.current)
        assert proxy.count(is_list) == 2

        async with own.as_leader(proxy.client, since) as leader, record_watch(leader, AiModel) as seen_by_leader:
            await seen_by_leader.until(lambda: seen_by_leader.synced)
            assert await leader.get_many(AiModel, ["by-another"]) == [by_another]
        assert proxy.count(is_list) == 2


async def test_a_failed_list_is_repeated(store: Store, disturbed: Store, proxy: FaultyProxy) -> None:
    created = await store.create(a_model("opus"))
    refusals = proxy.faults(is_list, Refuse(429, retry_after=1), Refuse(503), Refuse(410))
    async with refusals, record_watch(disturbed, AiModel) as seen:
        await seen.until(lambda: seen.synced)
    assert seen.current == {"opus": created}


async def test_a_watcher_that_begins_during_an_outage_gets_everything_afterwards(
    disturbed: Store, proxy: FaultyProxy
) -> None:
    outage = proxy.faults(is_watch, Refuse(503), Refuse(503))
    async with outage, record_watch(disturbed, AiModel) as first:
        await first.until(lambda: first.synced)
        created = await disturbed.create(a_model("opus"))
        async with record_watch(disturbed, AiModel) as second:
            await second.until(lambda: second.synced)
    assert Changed(created) in second.changes


async def test_a_silent_watch_raises_nothing_and_reports_its_silence(
    store: Store, disturbed: Store, proxy: FaultyProxy
) -> None:
    proxy.plan = lambda request: Refuse(503) if is_watch(request) else None
    async with record_watch(disturbed, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        created = await store.create(a_model("opus"))
        await eventually(lambda: disturbed.silent_seconds(AiModel) > IMPATIENT.silence_seconds)
        assert seen.current == {}
        proxy.plan = lambda request: None
        await seen.until(lambda: seen.current == {"opus": created})
        await eventually(lambda: disturbed.silent_seconds(AiModel) < IMPATIENT.silence_seconds)


async def test_a_watch_of_secrets_is_never_silent_for_long(store: Store) -> None:
    async with record_watch(store, Secret) as seen:
        await seen.until(lambda: seen.synced)
        await eventually(lambda: store.silent_seconds(Secret) > FREQUENT.watch_seconds / 2)
        await eventually(lambda: store.silent_seconds(Secret) < 1)
    assert FREQUENT.silence_seconds + FREQUENT.watch_seconds < MAX_SILENCE_SECONDS


async def test_a_watch_does_not_report_a_resource_that_this_store_deleted(
    store: Store, disturbed: Store, proxy: FaultyProxy
) -> None:
    await store.create(a_model("opus"))
    async with record_watch(disturbed, AiModel) as first, proxy.faults(is_watch, Break(Cut.SILENCE)):
        await first.until(lambda: first.synced)
        await disturbed.delete(AiModel, "opus")
        async with record_watch(disturbed, AiModel) as second:
            await second.until(lambda: second.synced)
    assert second.resource_changes == []


async def test_a_watch_is_complete_after_many_faults(store: Store, disturbed: Store, proxy: FaultyProxy) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201, pytest shows it if the test fails
    chance = random.Random(seed)
    faults = [a_fault(chance) for _ in range(MANY)]

    def plan(request: web.BaseRequest) -> Fault | None:
        return faults.pop() if faults and is_watch(request) else None

    proxy.plan = plan
    async with record_watch(disturbed, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        while faults:
            await write_something(store, chance)
        last = await store.create(a_model("last"))
        await seen.until(lambda: seen.current.get("last") == last)
    assert list(seen.current.values()) == await store.list(AiModel)
    for name in {change.resource.name for change in seen.resource_changes}:
        versions = [
            int(change.resource.metadata.resource_version)
            for change in seen.resource_changes
            if change.resource.name == name and isinstance(change, Changed)
        ]
        assert versions == sorted(set(versions))


def a_fault(chance: random.Random) -> Fault:
    how = chance.choices(list(Cut), weights=[1 if how is Cut.SILENCE else 5 for how in Cut])[0]
    return Refuse(410) if chance.random() < 0.1 else Break(how, after_lines=chance.randrange(4))


async def write_something(store: Store, chance: random.Random) -> None:
    """Create, change or delete one of a few models."""
    name = f"model-{chance.randrange(8)}"
    with suppress(Conflict, NotFound):
        match chance.randrange(3):
            case 0:
                await store.create(a_model(name))
            case 1:
                model = await store.get(AiModel, name)
                await store.update(replace(model, spec=replace(model.spec, slots=chance.randrange(100))))
            case _:
                await store.delete(AiModel, name)
