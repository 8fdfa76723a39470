"""Tests of the prices of a request, by the model that answers it."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from labrats.executor.key_proxy.budget import prices_of
from labrats.model.ai_model import Prices
from labrats.model.config import JobConfig
from labrats.model.list_prices import list_prices
from labrats.model.protocol import Task
from tests.unit.executor.attempts import a_task

OWN, OPUS, OLD, HAIKU = Prices(input=1), Prices(input=2), Prices(input=3), Prices(input=0.1)
OTHERS = {"opus": OPUS, "claude-opus-4-1": OLD, "haiku": HAIKU}


def a_task_on(tmp_path: Path, model: str | None, prices: Prices | None, provider: str = "claude") -> Task:
    return a_task(tmp_path, config=JobConfig(provider=provider, model=model), prices=prices, other_prices=OTHERS)


@pytest.mark.parametrize(
    ("model", "prices"),
    [
        ("claude-sonnet-5-5", OWN),
        ("claude-opus-5-5", OPUS),
        ("claude-opus-4-1", OLD),
        ("claude-opus-4-1-20250805", OLD),
        ("claude-haiku-4-5", HAIKU),
        ("another", OWN),
    ],
)
@pytest.mark.parametrize("own", ["sonnet", "sonnet[1m]", "claude-sonnet-5-5"])
def test_prices_are_those_of_the_model_that_is_named_best(tmp_path: Path, own: str, model: str, prices: Prices) -> None:
    assert prices_of(model, a_task_on(tmp_path, own, OWN)) == prices


def test_older_version_of_the_jobs_own_alias_has_its_own_prices(tmp_path: Path) -> None:
    task = replace(a_task_on(tmp_path, "opus", OWN), other_prices={"claude-opus-4-1": OLD})
    assert prices_of("claude-opus-4-1", task) == OLD
    assert prices_of("claude-opus-5-5", task) == OWN


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-sonnet-5-5"])
def test_alias_of_several_models_has_no_prices_of_its_own(tmp_path: Path, model: str) -> None:
    task = replace(a_task_on(tmp_path, "sonnet", OWN), other_prices={"opus": OPUS, "opusplan": HAIKU})
    assert prices_of(model, task) == (OWN if "sonnet" in model else OPUS)


def test_prices_of_an_unknown_model_are_unknown(tmp_path: Path) -> None:
    assert prices_of("claude-sonnet-5-5", a_task_on(tmp_path, "sonnet", None)) is None
    assert prices_of("gpt-5", a_task_on(tmp_path, "gpt-5", None, "codex")) == list_prices().models["gpt-5"]
    assert prices_of(None, a_task_on(tmp_path, "sonnet", OWN)) is None
