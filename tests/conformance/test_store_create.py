"""The contract of every Store (labrats/ports.py): creating and reading resources."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from labrats.model.agent import AiAgent
from labrats.model.ai_model import AiModel
from labrats.model.core_resources import API_KEY_LABEL, API_KEY_LABEL_VALUE, ConfigMap, Secret
from labrats.model.errors import Conflict, NotFound, Taken
from labrats.model.job import Job, JobStatus
from labrats.model.record import Metadata
from labrats.ports import Store
from tests.conformance.store_resources import a_finished_job, a_job, a_model, a_prompt, a_secret, with_name
from tests.support.builders import an_agent

# Creating and reading


async def test_a_created_resource_is_read_back(store: Store) -> None:
    created = await store.create(a_model("opus", slots=3))
    assert await store.get(AiModel, "opus") == created
    assert created.spec == a_model("opus", slots=3).spec


async def test_create_sets_uid_version_and_time(store: Store) -> None:
    first, second = await store.create(a_model("first")), await store.create(a_model("second"))
    assert first.metadata.uid
    assert first.metadata.uid != second.metadata.uid
    assert first.metadata.resource_version
    assert first.metadata.created_at is not None
    assert first.metadata.created_at.utcoffset() == timedelta(0)


async def test_a_creation_time_that_is_given_is_stored(store: Store) -> None:
    a_second_ago = datetime.now(UTC) - timedelta(seconds=1)
    job = replace(a_job("ir-00000001"), metadata=Metadata(name="ir-00000001", created_at=a_second_ago))
    assert (await store.create(job)).created_at == a_second_ago
    assert (await store.get(Job, job.id)).created_at == a_second_ago


async def test_every_field_of_a_job_survives(store: Store) -> None:
    created = await store.create(replace(a_finished_job("ir-00000001"), status=JobStatus()))
    updated = await store.update(replace(created, status=a_finished_job("ir-00000001").status))
    assert await store.get(Job, "ir-00000001") == updated
    assert replace(updated, metadata=Metadata(name="")) == replace(
        a_finished_job("ir-00000001"), metadata=Metadata(name="")
    )
    assert updated.metadata.labels == {"team": "red"}
    assert updated.metadata.annotations == {"note": "by hand"}


async def test_get_of_a_missing_resource_raises_not_found(store: Store) -> None:
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


async def test_create_with_a_taken_claim_raises_taken_and_leaves_nothing(store: Store) -> None:
    first = await store.create(a_model("first"))
    with pytest.raises(Taken, match=r"'first' has the provider 'mock' with the model 'first'"):
        await store.create(with_name(first, "second"), [Secret(metadata=Metadata(name="part"))])
    assert await store.list(AiModel) == [first]
    assert await store.list(Secret) == []


async def test_one_of_many_concurrent_creates_with_the_same_claim_succeeds(store: Store) -> None:
    agents = [an_agent(f"agent-{number}", trigger_name="developer") for number in range(8)]
    outcomes = await asyncio.gather(*(store.create(agent) for agent in agents), return_exceptions=True)
    winners = [outcome for outcome in outcomes if isinstance(outcome, AiAgent)]
    assert [type(outcome) for outcome in outcomes].count(Taken) == 7
    assert winners == await store.list(AiAgent)


async def test_update_to_a_taken_claim_raises_taken(store: Store) -> None:
    first = await store.create(a_model("first"))
    second = await store.create(a_model("second", slots=3))
    with pytest.raises(Taken, match="first"):
        await store.update(replace(second, spec=first.spec))
    assert (await store.get(AiModel, "second")).spec == second.spec


async def test_one_of_two_concurrent_updates_to_the_same_claim_succeeds(store: Store) -> None:
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


async def test_a_released_claim_can_be_taken(store: Store) -> None:
    first = await store.create(a_model("first"))
    await store.update(replace(first, spec=replace(first.spec, model="other")))
    second = await store.create(with_name(first, "second"))
    await store.delete(AiModel, "second")
    assert (await store.create(with_name(second, "third"))).spec == first.spec


async def test_a_name_is_taken_only_within_its_kind(store: Store) -> None:
    await store.create(a_model("opus"))
    await store.create(Secret(metadata=Metadata(name="opus")))


async def test_one_of_many_concurrent_creates_of_one_name_succeeds(store: Store) -> None:
    attempts = [store.create(a_model("opus", slots=slots)) for slots in range(8)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    winners = [outcome for outcome in outcomes if isinstance(outcome, AiModel)]
    assert [type(outcome) for outcome in outcomes].count(Conflict) == 7
    assert winners == [await store.get(AiModel, "opus")]


async def test_a_failing_write_does_not_affect_concurrent_writes(store: Store) -> None:
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


async def test_get_many_keeps_the_order_of_names_and_omits_missing_resources(store: Store) -> None:
    created = {name: await store.create(a_model(name)) for name in ("a", "b", "c")}
    assert await store.get_many(AiModel, ["c", "missing", "a"]) == [created["c"], created["a"]]
    assert await store.get_many(AiModel, []) == []


async def test_get_many_accepts_many_names(store: Store) -> None:
    names = [f"model-{n:03}" for n in range(250)]
    await asyncio.gather(*(store.create(a_model(name)) for name in names))
    assert [model.name for model in await store.get_many(AiModel, names)] == names


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
async def test_list_returns_all_resources_of_a_kind_ordered_by_name(store: Store, count: int) -> None:
    names = [f"model-{n:03}" for n in range(count)]
    await asyncio.gather(*(store.create(a_model(name)) for name in reversed(names)))
    await store.create(Secret(metadata=Metadata(name="model-of-another-kind")))
    listed = await store.list(AiModel)
    assert [model.name for model in listed] == names
    assert listed == await store.get_many(AiModel, names)


async def test_list_by_labels_returns_resources_with_all_of_them(store: Store) -> None:
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


# Sizes and character sets


async def test_a_prompt_of_900_kib_is_stored(store: Store) -> None:
    text = "Überprüfe die Änderung. " * 36_864
    assert len(text.encode()) >= 900 * 1024
    await store.create(a_job("ir-00000001"), [a_prompt("prompt-1", text)])
    assert (await store.get(ConfigMap, "prompt-1")).data["prompt"] == text


@pytest.mark.parametrize(
    "text", ["", "Grüße aus Köln", "實驗室的老鼠", "🐀🧪", "e\u0301 \u2028 \u200f \t\r\n", '"\\/{}<script>']
)
async def test_any_text_is_stored_unchanged(store: Store, text: str) -> None:
    await store.create(a_prompt("prompt-1", text))
    assert (await store.get(ConfigMap, "prompt-1")).data["prompt"] == text
