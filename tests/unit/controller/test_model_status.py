"""Duplicates of AiModels and unlabelled Secrets are reported in conditions."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.credential_labels import CredentialLabels
from labrats.controller.model_status import PASS_SECONDS, ModelStatusReconciler
from labrats.model.ai_model import AiModel, ai_models_in_use
from labrats.model.core_resources import JOB_CREDENTIALS, Secret
from labrats.model.errors import REFUSED_SECONDS, Invalid, Problem
from labrats.model.record import Metadata
from tests.fakes.clock import NOON, FakeClock, VirtualTimeLoop
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background
from tests.support.builders import an_ai_model


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[MemoryStore]:
    """A store whose AiModels are reviewed."""
    store = MemoryStore(clock)
    async with run_in_background(ModelStatusReconciler(store, clock).run()):
        yield store


async def conditions(store: MemoryStore, name: str) -> list[tuple[str, str]]:
    """Return the status and message of each condition."""
    return [(each.status, each.message) for each in (await store.get(AiModel, name)).status.conditions]


async def apply(store: MemoryStore, clock: FakeClock, model: AiModel) -> None:
    store.apply(model)
    await clock.advance(1)


async def test_the_younger_duplicate_has_a_condition_while_the_older_exists(
    store: MemoryStore, clock: FakeClock
) -> None:
    await apply(store, clock, an_ai_model("z-first"))
    await apply(store, clock, an_ai_model("a-second"))
    ((status, message),) = await conditions(store, "a-second")
    assert status == "False"
    assert "the older AiModel 'z-first' has the provider 'mock' with the model 'mock'" in message
    assert await conditions(store, "z-first") == []

    await store.delete(AiModel, "z-first")
    await clock.advance(1)
    assert await conditions(store, "a-second") == [("True", "")]


async def test_a_duplicate_that_gets_another_model_is_accepted(store: MemoryStore, clock: FakeClock) -> None:
    await apply(store, clock, an_ai_model("first"))
    await apply(store, clock, an_ai_model("second"))
    second = await store.get(AiModel, "second")
    await store.update(replace(second, spec=replace(second.spec, model="other")))
    await clock.advance(1)
    assert await conditions(store, "second") == [("True", "")]


async def test_an_ai_model_without_a_duplicate_is_not_written(store: MemoryStore, clock: FakeClock) -> None:
    created = await store.create(an_ai_model("alone"))
    await apply(store, clock, an_ai_model("other", model="other"))
    assert await store.get(AiModel, "alone") == created


def test_the_oldest_duplicate_is_used_or_the_first_by_name() -> None:
    def at(name: str, minutes: int) -> AiModel:
        model = an_ai_model(name)
        return replace(model, metadata=replace(model.metadata, created_at=NOON + timedelta(minutes=minutes)))

    models = [at("a", 2), at("c", 1), at("b", 1)]
    for order in (models, models[::-1]):
        assert {group: used.name for group, used in ai_models_in_use(order).items()} == {("mock", "mock"): "b"}


@pytest.mark.parametrize(("required", "words"), [(True, "its jobs fail: kubectl label"), (False, "its jobs fail once")])
async def test_an_unlabelled_secret_is_reported_on_the_ai_model_until_it_is_labelled(
    clock: FakeClock, required: bool, words: str
) -> None:
    store = MemoryStore(clock)
    labels = CredentialLabels(store, required=required)
    secret = await store.create(Secret(metadata=Metadata(name="key")))
    async with run_in_background(ModelStatusReconciler(store, clock, labels).run()):
        await apply(store, clock, an_ai_model("opus", credentials_ref="key"))
        ((status, message),) = await conditions(store, "opus")
        assert status == "False"
        assert words in message

        await store.update(replace(secret, metadata=replace(secret.metadata, labels=JOB_CREDENTIALS)))
        await clock.advance(PASS_SECONDS + 1)
        assert [status for status, _ in await conditions(store, "opus")] == ["True"]


async def test_no_condition_for_a_labelled_or_missing_secret_or_on_one_machine(clock: FakeClock) -> None:
    store = MemoryStore(clock)
    await store.create(Secret(metadata=Metadata(name="labelled", labels=JOB_CREDENTIALS)))
    await store.create(Secret(metadata=Metadata(name="unlabelled")))
    async with run_in_background(ModelStatusReconciler(store, clock, CredentialLabels(store, required=True)).run()):
        await apply(store, clock, an_ai_model("one", model="one", credentials_ref="labelled"))
        await apply(store, clock, an_ai_model("two", model="two", credentials_ref="missing"))
        assert [await conditions(store, name) for name in ("one", "two")] == [[], []]
    async with run_in_background(ModelStatusReconciler(store, clock).run()):
        await apply(store, clock, an_ai_model("three", model="three", credentials_ref="unlabelled"))
        assert await conditions(store, "three") == []


async def test_an_ai_model_whose_status_cannot_be_written_delays_no_other(store: MemoryStore, clock: FakeClock) -> None:
    store.refusals["b-second"] = Invalid(Problem("object", "is too large"))
    for name in ("a-first", "b-second", "c-third"):
        await apply(store, clock, an_ai_model(name))
    assert await conditions(store, "b-second") == []
    assert len(await conditions(store, "c-third")) == 1
    store.refusals.clear()
    await clock.advance(REFUSED_SECONDS + 1)
    assert len(await conditions(store, "b-second")) == 1
