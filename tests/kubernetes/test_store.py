"""The Kubernetes store beyond the contract of every Store: it shares its objects with people and other programs."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes.client import JSON_PATCH, ApiClient, ApiServerRefusal
from labrats.backends.kubernetes.codec import CREATED_AT, LABRATS_API, ResourceType, resource_type
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.model.ai_model import AiModel
from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict, Invalid, LabratsError, NotFound, RetryLater
from labrats.model.job import PROMPT_BYTES, FailedCode, Job, advance
from labrats.model.phases import JobEvent
from labrats.model.record import Metadata, Resource, encode
from labrats.ports import Changed, Deleted, Store, Synced
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_spec, an_ai_model
from tests.support.watch_recorder import record_watch

pytestmark = pytest.mark.kubernetes


@pytest.fixture
async def store(api_client: ApiClient, namespace: str) -> AsyncIterator[KubernetesStore]:
    async with KubernetesStore.open(api_client, namespace) as store:
        yield store


class Person:
    """A person with kubectl."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def create(self, kind: type[Resource], **fields: Any) -> None:
        resources = resource_type(kind)
        body = {"apiVersion": resources.api_version, "kind": kind.kind(), **fields}
        await self._client.request("POST", resources.path(self._namespace), encode(body))

    async def set(self, resource: Resource, path: str, value: Any) -> None:
        patch = [{"op": "add", "path": path, "value": value}]
        url = resource_type(type(resource)).path(self._namespace, resource.name)
        await self._client.request("PATCH", url, encode(patch), content_type=JSON_PATCH)

    async def read(self, resource: Resource) -> bytes:
        return await self._client.request("GET", resource_type(type(resource)).path(self._namespace, resource.name))


@pytest.fixture
def person(api_client: ApiClient, namespace: str) -> Person:
    return Person(api_client, namespace)


DELETED_OWNER: Final = {"apiVersion": LABRATS_API, "kind": "AiModel", "name": "opus", "uid": "uid-of-a-deleted-owner"}
FOREIGN_OWNER: Final = {
    "apiVersion": "example.com/v1",
    "kind": "AiModel",
    "name": "opus",
    "uid": "uid-of-a-foreign-owner",
}


@pytest.mark.parametrize("owners", [[FOREIGN_OWNER], [DELETED_OWNER, FOREIGN_OWNER]], ids=["of another API", "shared"])
async def test_a_part_with_a_foreign_owner_is_not_replaced(
    store: Store, person: Person, owners: list[dict[str, str]]
) -> None:
    await person.create(Secret, metadata={"name": "part", "ownerReferences": owners}, data={"key": "dGVzdA=="})
    with pytest.raises(Conflict, match="part"):
        await store.create(an_ai_model("opus"), [Secret(metadata=Metadata(name="part"))])
    assert (await store.get(Secret, "part")).data == {"key": "test"}
    with pytest.raises(NotFound):
        await store.get(AiModel, "opus")


async def test_jobs_keep_the_order_in_which_they_were_created(store: Store) -> None:
    jobs = [await store.create(Job(metadata=Metadata(name=f"ir-{number:08}"), spec=a_spec())) for number in range(5)]
    times = [job.created_at for job in jobs]
    assert times == sorted(set(times))
    assert [(await store.get(Job, job.name)).created_at for job in jobs] == times


async def test_an_applied_resource_has_the_creation_time_of_the_api_server(store: Store, person: Person) -> None:
    copied = {CREATED_AT: (datetime.now().astimezone() - timedelta(days=30)).isoformat()}
    spec = {"provider": "mock", "model": "opus", "slots": 1}
    await person.create(AiModel, metadata={"name": "plain"}, spec=spec)
    await person.create(AiModel, metadata={"name": "copied", "annotations": copied}, spec=spec)
    await person.create(AiModel, metadata={"name": "wrong", "annotations": {CREATED_AT: "yesterday"}}, spec=spec)
    for model in await store.list(AiModel):
        assert model.metadata.created_at
        assert datetime.now().astimezone() - model.metadata.created_at < timedelta(minutes=5)
        assert model.metadata.annotations == {}


async def test_an_applied_job_can_be_read(store: Store, person: Person) -> None:
    await person.create(
        Job, metadata={"name": "by-hand"}, spec={"source": "kubectl", "type": "code-review", "prompt": "Look."}
    )
    job = await store.get(Job, "by-hand")
    assert (job.spec.source, job.spec.prompt, job.status.attempts) == ("kubectl", "Look.", 0)


async def test_update_keeps_fields_of_other_clients(store: Store, person: Person) -> None:
    model = await store.create(an_ai_model("opus", slots=1))
    await person.set(model, "/metadata/finalizers", ["example.com/keep"])
    model = await store.get(AiModel, "opus")
    await store.update(replace(model, spec=replace(model.spec, slots=2)))
    assert b"example.com/keep" in await person.read(model)
    await person.set(model, "/metadata/finalizers", [])


async def test_one_update_can_change_labels_and_status(store: Store) -> None:
    job = await store.create(Job(metadata=Metadata(name="ir-00000001"), spec=a_spec()))
    changed = replace(
        job, metadata=replace(job.metadata, labels={"team": "red"}), status=replace(job.status, attempts=1)
    )
    updated = await store.update(changed)
    assert (updated.metadata.labels, updated.status.attempts) == ({"team": "red"}, 1)
    assert await store.get(Job, job.name) == updated


async def test_a_deletion_that_waits_for_a_finalizer_blocks_no_watcher(store: Store, person: Person) -> None:
    model = await store.create(an_ai_model("opus"))
    await person.set(model, "/metadata/finalizers", ["example.com/keep"])
    async with record_watch(store, AiModel) as first:
        await first.until(lambda: first.synced)
        await store.delete(AiModel, "opus")
        async with record_watch(store, AiModel) as second:
            await second.until(lambda: second.synced)
            await person.set(model, "/metadata/finalizers", [])
            await second.until(lambda: not second.current)
            await first.until(lambda: not first.current)


async def test_foreign_secrets_are_ignored(store: Store, person: Person) -> None:
    await person.create(Secret, metadata={"name": "release"}, type="helm.sh/release.v1", data={"release": "AAAA"})
    mine = await store.create(Secret(metadata=Metadata(name="mine"), data={"key": "test-secret"}))
    assert await store.list(Secret) == [mine]
    async with record_watch(store, Secret) as seen:
        await seen.until(lambda: seen.synced)
        assert seen.current == {"mine": mine}


async def test_a_binary_secret_is_hidden_and_blocks_no_watcher(store: Store, person: Person) -> None:
    async with record_watch(store, Secret) as seen:
        await seen.until(lambda: seen.synced)
        await person.create(Secret, metadata={"name": "binary"}, data={"key": "/w=="})
        text = await store.create(Secret(metadata=Metadata(name="text"), data={"key": "test-secret"}))
        await seen.until(lambda: seen.current == {"text": text})
    assert await store.list(Secret) == [text]
    with pytest.raises(NotFound, match="binary"):
        await store.get(Secret, "binary")


async def test_a_refused_resource_is_invalid_with_every_field(store: Store) -> None:
    with pytest.raises(Invalid) as refusal:
        await store.create(an_ai_model("opus", provider="unheard-of", slots=-1))
    assert {problem.field for problem in refusal.value.problems} == {"spec.provider", "spec.slots"}


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize("size", [300_000, 700_000], ids=["for etcd", "for a message to etcd"])
async def test_an_outcome_that_is_too_large_is_invalid(store: Store, size: int) -> None:
    job = await store.create(a_job(spec=a_spec(prompt="x" * PROMPT_BYTES), resource_version=""))
    failed = advance(job, JobEvent.START, started_at=NOON, slot="mock/mock", attempts=1)
    outcome = {"failed_code": FailedCode.AGENT_ERROR, "failed_reason": "x" * size, "finished_at": NOON}
    with pytest.raises(Invalid, match="larger than etcd allows"):
        await store.update(advance(failed, JobEvent.FAIL, **outcome))


async def test_get_many_includes_the_writes_of_this_store(store: Store) -> None:
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
        for slots in range(20):
            written = await store.create(an_ai_model(f"model-{slots}", model=f"model-{slots}", slots=slots))
            assert await store.get_many(AiModel, [written.name]) == [written]


async def test_changes_before_the_first_read_are_reported_once_in_their_latest_version(store: Store) -> None:
    for name in ("changed", "deleted"):
        await store.create(an_ai_model(name, model=name, slots=1))
    slow = store.watch(AiModel)
    first = await anext(slow)
    assert isinstance(first, Changed)
    for name in ("changed", "deleted"):
        model = await store.get(AiModel, name)
        await store.update(replace(model, spec=replace(model.spec, slots=2)))
    await store.delete(AiModel, "deleted")
    last = await store.create(an_ai_model("last", model="last"))
    async with record_watch(store, AiModel) as seen:
        await seen.until(lambda: "last" in seen.current)

    rest = [await anext(slow)]
    while rest[-1] != Changed(last):
        rest.append(await anext(slow))
    before_synced, after_synced = rest[: rest.index(Synced())], rest[rest.index(Synced()) + 1 :]
    if first.resource.name == "changed":  # so the deleted one was not reported before, and never is
        assert before_synced == []
        assert [type(change) for change in after_synced] == [Changed, Changed]
    else:
        assert before_synced == [Changed(seen.current["changed"])]
        assert [type(change) for change in after_synced] == [Deleted, Changed]


async def test_a_store_can_be_closed_while_its_watches_wait(api_client: ApiClient, namespace: str) -> None:
    async with KubernetesStore.open(api_client, namespace) as store, record_watch(store, AiModel) as seen:
        await seen.until(lambda: seen.synced)
    assert len(asyncio.all_tasks()) <= 2


async def test_an_error_in_the_block_is_raised_unchanged(api_client: ApiClient, namespace: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with KubernetesStore.open(api_client, namespace) as store, record_watch(store, AiModel):
            raise ZeroDivisionError


async def test_a_missing_namespace_raises_retry_later(api_client: ApiClient) -> None:
    async with KubernetesStore.open(api_client, "labrats-test-missing") as store:
        with pytest.raises(RetryLater, match="labrats-test-missing"):
            await store.create(an_ai_model("opus"))


async def test_a_missing_kubeconfig_is_reported(tmp_path: Any) -> None:
    with pytest.raises(LabratsError, match="no Kubernetes cluster is configured"):
        async with ApiClient.open(tmp_path / "missing"):
            pass


async def test_a_field_that_older_custom_resources_lack_is_refused_instead_of_dropped(
    store: KubernetesStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_object = ResourceType.new_object

    def of_a_later_version(self: ResourceType[Any], resource: Any) -> dict[str, Any]:
        later = new_object(self, resource)
        return later | {"spec": json.loads(encode(later["spec"])) | {"isProtected": True}}

    monkeypatch.setattr(ResourceType, "new_object", of_a_later_version)
    with pytest.raises(ApiServerRefusal, match=r"isProtected.*the custom resources are older than this engine"):
        await store.create(an_ai_model())
    assert await store.list(AiModel) == []
