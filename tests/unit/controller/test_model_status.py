"""AiModels that people wrote are told where another stands for the same."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.credential_labels import CredentialLabels
from labrats.controller.model_status import PASS_SECONDS, ModelStatusReconciler
from labrats.model.ai_model import AiModel, ai_models_in_use
from labrats.model.core_resources import JOB_CREDENTIALS, Secret
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
    """Whose AiModels are reviewed."""
    store = MemoryStore(clock)
    async with run_in_background(ModelStatusReconciler(store, clock).run()):
        yield store


async def told(store: MemoryStore, name: str) -> list[tuple[str, str]]:
    """Status and message of each condition."""
    return [(each.status, each.message) for each in (await store.get(AiModel, name)).status.conditions]


async def apply(store: MemoryStore, clock: FakeClock, model: AiModel) -> None:
    store.apply(model)
    await clock.advance(1)


async def test_the_younger_one_is_told_for_as_long_as_it_is_so(store: MemoryStore, clock: FakeClock) -> None:
    await apply(store, clock, an_ai_model("z-first"))
    await apply(store, clock, an_ai_model("a-second"))
    ((status, message),) = await told(store, "a-second")
    assert status == "False"
    assert "the older AiModel 'z-first' has the provider 'mock' with the model 'mock'" in message
    assert await told(store, "z-first") == []

    await store.delete(AiModel, "z-first")
    await clock.advance(1)
    assert await told(store, "a-second") == [("True", "")]


async def test_it_is_told_no_longer_when_it_stands_for_something_else(store: MemoryStore, clock: FakeClock) -> None:
    await apply(store, clock, an_ai_model("first"))
    await apply(store, clock, an_ai_model("second"))
    second = await store.get(AiModel, "second")
    await store.update(replace(second, spec=replace(second.spec, model="other")))
    await clock.advance(1)
    assert await told(store, "second") == [("True", "")]


async def test_one_that_stands_alone_is_not_written(store: MemoryStore, clock: FakeClock) -> None:
    made = await store.create(an_ai_model("alone"))
    await apply(store, clock, an_ai_model("other", model="other"))
    assert await store.get(AiModel, "alone") == made


def test_the_oldest_is_used_and_of_those_of_one_time_the_first_by_name() -> None:
    def at(name: str, minutes: int) -> AiModel:
        model = an_ai_model(name)
        return replace(model, metadata=replace(model.metadata, created_at=NOON + timedelta(minutes=minutes)))

    models = [at("a", 2), at("c", 1), at("b", 1)]
    for order in (models, models[::-1]):
        assert {group: used.name for group, used in ai_models_in_use(order).items()} == {("mock", "mock"): "b"}


@pytest.mark.parametrize(("required", "words"), [(True, "its jobs fail: kubectl label"), (False, "its jobs fail once")])
async def test_a_model_whose_secret_is_not_labelled_is_told_until_it_is(
    clock: FakeClock, required: bool, words: str
) -> None:
    store = MemoryStore(clock)
    labels = CredentialLabels(store, required=required)
    secret = await store.create(Secret(metadata=Metadata(name="key")))
    async with run_in_background(ModelStatusReconciler(store, clock, labels).run()):
        await apply(store, clock, an_ai_model("opus", credentials_ref="key"))
        ((status, message),) = await told(store, "opus")
        assert status == "False"
        assert words in message

        await store.update(replace(secret, metadata=replace(secret.metadata, labels=JOB_CREDENTIALS)))
        await clock.advance(PASS_SECONDS + 1)
        assert [status for status, _ in await told(store, "opus")] == ["True"]


async def test_a_model_whose_secret_is_labelled_or_missing_or_on_one_machine_is_told_nothing(clock: FakeClock) -> None:
    store = MemoryStore(clock)
    await store.create(Secret(metadata=Metadata(name="labelled", labels=JOB_CREDENTIALS)))
    await store.create(Secret(metadata=Metadata(name="unlabelled")))
    async with run_in_background(ModelStatusReconciler(store, clock, CredentialLabels(store, required=True)).run()):
        await apply(store, clock, an_ai_model("one", model="one", credentials_ref="labelled"))
        await apply(store, clock, an_ai_model("two", model="two", credentials_ref="missing"))
        assert [await told(store, name) for name in ("one", "two")] == [[], []]
    async with run_in_background(ModelStatusReconciler(store, clock).run()):
        await apply(store, clock, an_ai_model("three", model="three", credentials_ref="unlabelled"))
        assert await told(store, "three") == []
