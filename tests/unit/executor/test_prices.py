"""Tests of the cost of a run."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.executor.prices import require_price, with_job_cost
from labrats.model.ai_model import Prices, cost_of
from labrats.model.config import JobConfig
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import ErrorEvent, Task
from tests.unit.executor.attempts import a_task, an_attempt, some_work

MILLION = 1_000_000
USED = Usage(input_tokens=MILLION, output_tokens=MILLION, cache_read_tokens=MILLION)
OWN = Prices(input=1, output=2, cache_read=0.5)


def a_task_on(tmp_path: Path, provider: str, model: str | None = None, **fields: Any) -> Task:
    return a_task(tmp_path, config=JobConfig(provider=provider, model=model, max_cost_usd=1.0), **fields)


@pytest.mark.parametrize(
    ("provider", "model", "reported", "prices", "cost"),
    [
        ("claude", "opus", 0.25, None, 0.25),
        ("claude", "opus", 0.25, OWN, 3.5),
        ("claude", "opus", None, None, None),
        ("codex", "gpt-5-codex", None, None, 11.375),
        ("codex", "gpt-5-codex", None, OWN, 3.5),
        ("codex", "gpt-5.5-2026-04-23", None, None, 35.5),
        ("codex", "a-new-one", None, None, None),
        ("vllm", "gpt-5-codex", None, None, None),
        ("vllm", "smol", None, OWN, 3.5),
        ("mock", None, 0.0, None, 0.0),
    ],
)
def test_cost_is_computed_from_prices_the_provider_or_the_list(
    tmp_path: Path, provider: str, model: str | None, reported: float | None, prices: Prices | None, cost: float | None
) -> None:
    usage = replace(USED, cost_usd=reported)
    assert with_job_cost(usage, a_task_on(tmp_path, provider, model, prices=prices)).cost_usd == cost


def test_tokens_written_to_a_cache_have_their_own_price() -> None:
    used = Usage(input_tokens=3 * MILLION, cache_write_tokens=MILLION)

    assert cost_of(used, Prices(input=1)) == 3
    assert cost_of(used, Prices(input=1, cache_write=1.25)) == 3.25
    assert cost_of(used, Prices(input=1, cache_write=0)) == 2


@pytest.mark.parametrize(("cache_read", "cost"), [(None, 0.4), (0, 0), (3, 3)])
def test_tokens_read_from_a_cache_of_an_unknown_price_cost_a_tenth(cache_read: float | None, cost: float) -> None:
    assert cost_of(Usage(cache_read_tokens=MILLION), Prices(input=4, cache_read=cache_read)) == cost


def test_caches_of_an_hour_cost_more() -> None:
    used = Usage(input_tokens=3 * MILLION, cache_write_tokens=2 * MILLION)

    assert cost_of(used, Prices(input=4, cache_write=5), hour_cache_tokens=MILLION) == 4 + 5 + 8
    assert cost_of(used, Prices(input=4), hour_cache_tokens=MILLION) == 3 * 4


@pytest.mark.parametrize("provider", ["vllm", "claude", "codex"])
@pytest.mark.parametrize("prices", [None, OWN])
def test_answer_without_reported_usage_has_no_known_cost(tmp_path: Path, provider: str, prices: Prices | None) -> None:
    task = a_task_on(tmp_path, provider, "gpt-5", prices=prices)

    assert with_job_cost(Usage(turns=1, cost_usd=0.0), task).known_cost_usd is None
    assert with_job_cost(Usage(), task).known_cost_usd == 0.0


def test_mock_script_sets_its_own_cost(tmp_path: Path) -> None:
    assert with_job_cost(Usage(turns=1, cost_usd=0.0), a_task_on(tmp_path, "mock")).known_cost_usd == 0.0


def test_sum_with_unreported_usage_has_no_known_cost(tmp_path: Path) -> None:
    with some_work(tmp_path, a_task(tmp_path, config=JobConfig(provider="vllm"), prices=OWN)) as work:
        for tokens in (10, 0, 10):
            work.context.add_usage(Usage(input_tokens=tokens, turns=1))

    assert work.context.events.totals.usage == Usage(input_tokens=20, turns=3)


def test_list_price_of_the_answering_model_is_used_if_the_job_names_none(tmp_path: Path) -> None:
    task = a_task_on(tmp_path, "codex", "codex")

    assert with_job_cost(USED, task).cost_usd is None
    assert with_job_cost(USED, task, "gpt-5-codex").cost_usd == 11.375


@pytest.mark.parametrize(("provider", "model"), [("claude", "opus"), ("mock", None), ("codex", "gpt-5-codex")])
def test_cost_limit_is_accepted_if_the_cost_is_known(tmp_path: Path, provider: str, model: str | None) -> None:
    require_price(a_task_on(tmp_path, provider, model))


def test_cost_limit_is_rejected_if_the_price_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(GiveUp, match="the price of the model 'smol' is unknown") as refusal:
        require_price(a_task_on(tmp_path, "vllm", "smol"))
    assert refusal.value.code == FailedCode.BUDGET
    require_price(a_task_on(tmp_path, "vllm", "smol", prices=OWN))


def test_run_over_its_cost_limit_fails_with_budget(tmp_path: Path) -> None:
    steps = [{"usage": {"inputTokens": MILLION}}, {"usage": {"inputTokens": MILLION}}, {"result": "never"}]
    config = JobConfig(provider="mock", max_cost_usd=1.5)
    attempt = an_attempt(tmp_path, steps, config=config, prices=OWN)
    attempt.run()
    assert isinstance(attempt.outcome, ErrorEvent)
    assert attempt.outcome.code is FailedCode.BUDGET
    assert attempt.outcome.usage.cost_usd == 2.0


@pytest.mark.parametrize(
    ("one", "other", "cost"),
    [
        (Usage(), Usage(), 0.0),
        (Usage(cost_usd=0.5), Usage(cost_usd=0.25), 0.75),
        (Usage(), Usage(input_tokens=1, cost_usd=0.25), 0.25),
        (Usage(input_tokens=1), Usage(cost_usd=0.25), None),
        (Usage(cost_usd=0.25), Usage(output_tokens=1), None),
        (Usage(cost_usd=0.25), Usage(turns=1), None),
    ],
)
def test_cost_of_a_sum_is_known_if_all_parts_are_known(one: Usage, other: Usage, cost: float | None) -> None:
    assert (one + other).known_cost_usd == cost
