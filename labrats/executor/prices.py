"""Compute the cost of a run from its usage."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from labrats.model.ai_model import Prices, cost_of
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import Task
from labrats.model.provider_spec import provider_spec

LIST_PRICES: Final[Mapping[str, Prices]] = {
    "gpt-6.2-astra": Prices(input=8, output=40, cache_read=0.4, cache_write=10),
    "gpt-6.2-sol": Prices(input=2, output=10, cache_read=0.1, cache_write=2.5),
    "gpt-6.1-sol": Prices(input=2, output=10, cache_read=0.1, cache_write=2.5),
    "gpt-6.1-terra": Prices(input=1, output=5, cache_read=0.05, cache_write=1.25),
    "gpt-6-astra": Prices(input=10, output=50, cache_read=1, cache_write=12.5),
    "gpt-6-sol": Prices(input=2, output=10, cache_read=0.2, cache_write=2.5),
    "gpt-6-luna": Prices(input=0.1, output=0.5, cache_read=0.01, cache_write=0.125),
    "gpt-5.6-sol": Prices(input=4, output=20, cache_read=0.4, cache_write=5),
    "gpt-5.6-terra": Prices(input=2, output=12, cache_read=0.2, cache_write=2.5),
    "gpt-5.6-luna": Prices(input=0.2, output=1.2, cache_read=0.02, cache_write=0.25),
    "gpt-5.5": Prices(input=5, output=30, cache_read=0.5),
    "gpt-5.4": Prices(input=2.5, output=15, cache_read=0.25),
    "gpt-5.4-mini": Prices(input=0.75, output=4.5, cache_read=0.075),
    "gpt-5.4-nano": Prices(input=0.2, output=1.25, cache_read=0.02),
    "gpt-5.3-codex": Prices(input=1.75, output=14, cache_read=0.175),
    "gpt-5.2": Prices(input=1.75, output=14, cache_read=0.175),
    "gpt-5.2-codex": Prices(input=1.75, output=14, cache_read=0.175),
    "gpt-5.1": Prices(input=1.25, output=10, cache_read=0.125),
    "gpt-5.1-codex": Prices(input=1.25, output=10, cache_read=0.125),
    "gpt-5": Prices(input=1.25, output=10, cache_read=0.125),
    "gpt-5-codex": Prices(input=1.25, output=10, cache_read=0.125),
    "gpt-5-mini": Prices(input=0.25, output=2, cache_read=0.025),
    "gpt-5-nano": Prices(input=0.05, output=0.4, cache_read=0.005),
    "o3": Prices(input=2, output=8, cache_read=0.5),
    "o4-mini": Prices(input=1.1, output=4.4, cache_read=0.275),
}
"""List prices of November 2026, for models whose program reports only tokens. An AiModel's `prices` take precedence."""

WEB_SEARCH_USD: Final = 0.01
"""List price of a search that the model's server makes, at both providers."""

_DATE: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def with_job_cost(usage: Usage, task: Task, model: str | None = None) -> Usage:
    """Return the usage of a job's provider with its cost.

    The AiModel's prices decide, else the provider's report, else list prices. The cost is None if no price is known, or
    if the provider has answered without reporting its usage.
    model: the model that answered, if the job does not name one.
    """
    if usage.turns and not usage.tokens and task.config.provider != "mock":
        return replace(usage, cost_usd=None)
    prices = task.prices
    if prices is None and usage.cost_usd is None:
        prices = list_prices(task, model)
    return replace(usage, cost_usd=cost_of(usage, prices)) if prices else usage


def require_price(task: Task) -> None:
    """Raise GiveUp if the job's cost is limited but cannot be computed, so that the limit could not be enforced."""
    config = task.config
    known = task.prices or provider_spec(config.provider).reports_cost or list_prices(task)
    if config.max_cost_usd is not None and not known:
        message = (
            f"maxCostUsd is set, but the price of the model {config.model!r} is unknown: "
            "add `prices` to its AiModel, or limit the job with maxTokens"
        )
        raise GiveUp(FailedCode.BUDGET, message)


def list_prices(task: Task, model: str | None = None) -> Prices | None:
    """Return the list prices of the job's model, or else of `model`, if they are known."""
    if not provider_spec(task.config.provider).has_list_prices:
        return None
    names = (task.config.model, model)
    return next((LIST_PRICES[found] for name in names if name and (found := _DATE.sub("", name)) in LIST_PRICES), None)
