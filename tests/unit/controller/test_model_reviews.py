"""AiModels that people wrote are told where another stands for the same."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.model_reviews import ModelReviews
from labrats.model.ai_model import AiModel, ai_models_in_use
from tests.builders import an_ai_model
from tests.fakes.clock import NOON, FakeClock, VirtualTimeLoop
from tests.fakes.store import MemoryStore
from tests.running import running


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
    async with running(ModelReviews(store, clock).run()):
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
    assert "is that of the AiModel 'z-first', which is older" in message
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
