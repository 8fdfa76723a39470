"""Writes of the Kubernetes store that are refused, or whose answer is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from msgspec.structs import replace

from labrats.backends.kubernetes.client import JSON_PATCH, ApiClient
from labrats.backends.kubernetes.codec import resource_type
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.intake.job_parts import create_missing_parts, create_with_parts
from labrats.model.ai_model import AiModel
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import Conflict, NotFound, RetryLater
from labrats.model.job import Job
from labrats.model.record import Metadata, OwnerReference, Resource, encode
from labrats.ports import Store
from tests.cluster.proxy import Fault, FaultyProxy, Hold, Lose, Refuse, is_write
from tests.support.builders import a_spec, an_ai_model
from tests.support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.kubernetes

JOB = Job(metadata=Metadata(name="ir-00000001"), spec=a_spec())
PROMPT = ConfigMap(metadata=Metadata(name="ir-00000001-prompt"), data={"prompt": "Review this."})
GIT = Secret(metadata=Metadata(name="ir-00000001-git"), data={"password": "test-secret-password"})


@pytest.fixture
async def proxy(api_client: ApiClient, tmp_path: Path) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy.open(api_client, tmp_path) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: FaultyProxy, namespace: str) -> AsyncIterator[Store]:
    async with KubernetesStore.open(proxy.client, namespace) as store:
        yield store


async def test_create_with_a_lost_answer_returns_the_created_resource(store: Store, proxy: FaultyProxy) -> None:
    async with proxy.faults(is_write, Lose(), Lose(), Lose()):
        created = await store.create(JOB, [PROMPT, GIT])
    assert await store.get(Job, JOB.name) == created
    for part in (await store.get(ConfigMap, PROMPT.name), await store.get(Secret, GIT.name)):
        assert part.metadata.owner
        assert part.metadata.owner.uid == created.metadata.uid


async def test_a_refused_create_does_not_return_a_foreign_resource(store: Store, proxy: FaultyProxy) -> None:
    foreign = await store.create(an_ai_model("opus", slots=1))
    async with proxy.faults(is_write, Refuse(503)):
        with pytest.raises(RetryLater):
            await store.create(an_ai_model("opus", slots=2))
    assert await store.get(AiModel, "opus") == foreign


async def test_a_refused_create_leaves_nothing(store: Store, proxy: FaultyProxy) -> None:
    async with proxy.faults(is_write, Refuse(503)):
        with pytest.raises(RetryLater):
            await store.create(JOB, [PROMPT, GIT])
    await assert_nothing_is_left(store)


@pytest.mark.parametrize("fault", [Refuse(500), Refuse(429, retry_after=1), Lose()], ids=["500", "429", "lost"])
@pytest.mark.parametrize("position", range(3))
async def test_a_job_is_complete_or_can_be_completed_after_a_fault_at_any_write(
    store: Store, proxy: FaultyProxy, position: int, fault: Fault
) -> None:
    writes = 0

    def is_the_write(request: web.BaseRequest) -> bool:
        nonlocal writes
        writes += is_write(request)
        return is_write(request) and writes == position + 1

    async with proxy.faults(is_the_write, fault):
        with suppress(RetryLater):
            await create_with_parts(store, JOB, [PROMPT, GIT])
    with suppress(Conflict):
        await create_with_parts(store, JOB, [PROMPT, GIT])
    job = await store.get(Job, JOB.name)
    await create_missing_parts(store, job, [PROMPT, GIT])
    assert await owners_of_parts(store) == {job.metadata.uid}


async def test_a_job_without_its_parts_is_completed_after_an_outage(store: Store, proxy: FaultyProxy) -> None:
    proxy.plan = lambda request: Refuse(503) if is_write(request) and not request.path.endswith("requests") else None
    with pytest.raises(RetryLater):
        await create_with_parts(store, JOB, [PROMPT, GIT])
    proxy.plan = lambda request: None
    job = await store.get(Job, JOB.name)
    assert await asyncio.gather(*(create_missing_parts(store, job, [PROMPT, GIT]) for _ in range(3)))
    assert await owners_of_parts(store) == {job.metadata.uid}


async def test_a_part_that_another_replica_has_created_is_no_conflict(
    store: Store, proxy: FaultyProxy, api_client: ApiClient, namespace: str
) -> None:
    """Both replicas create the same job, and the later one completes it first."""
    completed = asyncio.Event()
    proxy.plan = lambda request: Hold(completed) if request.path.endswith(("/configmaps", "/secrets")) else None
    creating = asyncio.create_task(create_with_parts(store, JOB, [PROMPT, GIT]))
    async with KubernetesStore.open(api_client, namespace) as other:
        while not (found := await other.get_many(Job, [JOB.name])):
            await asyncio.sleep(0.01)
        assert await create_missing_parts(other, found[0], [PROMPT, GIT])
        completed.set()
        assert (await creating).metadata.uid == found[0].metadata.uid
    assert await owners_of_parts(store) == {found[0].metadata.uid}


async def test_create_with_a_part_whose_name_is_taken_leaves_nothing(store: Store) -> None:
    await store.create(GIT)
    with pytest.raises(Conflict):
        await create_with_parts(store, JOB, [PROMPT, GIT])
    await store.delete(Secret, GIT.name)
    await assert_nothing_is_left(store)


async def test_a_job_is_completed_once_the_undeletable_part_of_an_earlier_job_is_gone(
    store: Store, proxy: FaultyProxy, api_client: ApiClient, namespace: str
) -> None:
    prompts = resource_type(ConfigMap)
    leftover = replace(
        PROMPT.metadata, owner=OwnerReference(kind=Job.kind(), name=JOB.name, uid="uid-of-a-deleted-owner")
    )
    leftover = replace(leftover, created_at=datetime.now(UTC))
    body = prompts.new_object(ConfigMap(metadata=leftover, data={"prompt": "Review that."}))
    body["metadata"]["finalizers"] = ["example.com/keep"]
    await api_client.request("POST", prompts.path(namespace), encode(body))
    proxy.plan = lambda request: Refuse(403) if request.method == "DELETE" else None
    with pytest.raises(RetryLater, match="deleted InferenceRequest still exists"):
        await create_with_parts(store, JOB, [PROMPT, GIT])
    job = await store.get(Job, JOB.name)
    with pytest.raises(RetryLater):
        await create_missing_parts(store, job, [PROMPT, GIT])

    release = [{"op": "remove", "path": "/metadata/finalizers"}]
    await api_client.request("PATCH", prompts.path(namespace, PROMPT.name), encode(release), content_type=JSON_PATCH)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await is_completed(store, job):
            await asyncio.sleep(0.05)
    assert (await store.get(ConfigMap, PROMPT.name)).data == PROMPT.data
    assert await owners_of_parts(store) == {job.metadata.uid}


async def is_completed(store: Store, job: Job) -> bool:
    try:
        await create_missing_parts(store, job, [PROMPT, GIT])
    except RetryLater:
        return False
    return True


async def owners_of_parts(store: Store) -> set[str]:
    parts: list[Resource] = [await store.get(ConfigMap, PROMPT.name), await store.get(Secret, GIT.name)]
    return {part.metadata.owner.uid if part.metadata.owner else "nobody" for part in parts}


async def test_update_with_a_lost_answer_raises_an_error_although_it_succeeded(
    store: Store, proxy: FaultyProxy
) -> None:
    model = await store.create(an_ai_model("opus", slots=1))
    async with proxy.faults(is_write, Lose()):
        with pytest.raises((RetryLater, Conflict)):
            await store.update(replace(model, spec=replace(model.spec, slots=2)))
    assert (await store.get(AiModel, "opus")).spec.slots == 2


async def test_delete_with_a_lost_answer_can_be_repeated(store: Store, proxy: FaultyProxy) -> None:
    await store.create(an_ai_model("opus"))
    async with proxy.faults(is_write, Lose()):
        with pytest.raises((RetryLater, NotFound)):
            await store.delete(AiModel, "opus")
    with pytest.raises(NotFound):
        await store.delete(AiModel, "opus")


async def test_the_retry_delay_of_a_busy_api_server_is_used(store: Store, proxy: FaultyProxy) -> None:
    async with proxy.faults(lambda request: True, Refuse(429, retry_after=7)):
        with pytest.raises(RetryLater) as refusal:
            await store.get(AiModel, "opus")
    assert refusal.value.delay_seconds == 7


async def assert_nothing_is_left(store: Store) -> None:
    for kind, name in ((Job, JOB.name), (ConfigMap, PROMPT.name), (Secret, GIT.name)):
        with pytest.raises(NotFound):
            await store.get(kind, name)
