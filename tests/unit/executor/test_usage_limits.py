"""The limits on a run's cost and tokens, before and after a pause of its model."""

from pathlib import Path
from typing import Any

import pytest

from labrats.executor.usage_limits import UsageLimits
from labrats.model.config import JobConfig
from labrats.model.job import FailedCode, Usage
from tests.unit.executor.attempts import a_task, an_attempt

SPENT = Usage(input_tokens=60, output_tokens=30, cost_usd=0.75)


def limits(tmp_path: Path, **config: Any) -> UsageLimits:
    return UsageLimits.of(a_task(tmp_path, config=JobConfig(provider="mock", **config), spent=SPENT))


def test_rest_is_what_was_not_consumed_before_the_pause(tmp_path: Path) -> None:
    found = limits(tmp_path, max_tokens=100, max_cost_usd=1.0)
    assert (found.tokens_left, found.cost_left) == (10, 0.25)
    found = limits(tmp_path, max_tokens=50, max_cost_usd=0.5)
    assert (found.tokens_left, found.cost_left) == (0, 0.0)
    found = limits(tmp_path)
    assert (found.tokens_left, found.cost_left, bool(found)) == (None, None, False)


@pytest.mark.parametrize(
    ("config", "usage", "failure"),
    [
        ({"max_tokens": 100}, {"inputTokens": 10}, None),
        ({"max_tokens": 100}, {"inputTokens": 11}, "the run used 101 tokens, over maxTokens 100"),
        ({"max_cost_usd": 1.0}, {"costUsd": 0.25}, None),
        ({"max_cost_usd": 1.0}, {"costUsd": 0.5}, "the run cost $1.2500, over maxCostUsd $1.0"),
        ({"max_tokens": 90}, {}, "the run used 90 tokens before the pause"),
        ({"max_tokens": 95}, {}, "the run used 90 tokens before the pause"),
        ({"max_tokens": 5}, {}, "the run used 90 tokens before the pause"),
        ({"max_cost_usd": 0.75}, {}, "the run cost $0.7500 before the pause"),
    ],
)
def test_run_ends_when_its_attempts_together_exceed_a_limit(
    tmp_path: Path, config: dict[str, Any], usage: dict[str, Any], failure: str | None
) -> None:
    attempt = an_attempt(tmp_path, [{"usage": usage}], config=JobConfig(provider="mock", **config), spent=SPENT)
    succeeded = attempt.run() == 0
    assert succeeded is (failure is None)
    if failure:
        assert attempt.failure[0] is FailedCode.BUDGET
        assert failure in attempt.failure[1]


@pytest.mark.parametrize(
    ("spent", "limit"), [(Usage(input_tokens=9), 1.0), (Usage(input_tokens=9), None), (SPENT, 1.0)]
)
def test_log_says_that_an_unknown_cost_does_not_count(tmp_path: Path, spent: Usage, limit: float | None) -> None:
    attempt = an_attempt(tmp_path, [], config=JobConfig(provider="mock", max_cost_usd=limit), spent=spent)
    attempt.run()
    says = any("before the pause is unknown, and does not count for config.maxCostUsd" in line for line in attempt.logs)
    assert says is (limit is not None and spent.cost_usd is None)
