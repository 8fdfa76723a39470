"""Compute the cost of a run from its usage."""

from typing import Final

from msgspec.structs import replace

from labrats.model.ai_model import Prices, cost_of
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage
from labrats.model.list_prices import list_price
from labrats.model.protocol import Task
from labrats.model.provider_spec import provider_spec

WEB_SEARCH_USD: Final = 0.01
"""List price of a search that the model's server makes, at both providers."""


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
        prices = list_price_of_job(task, model)
    return replace(usage, cost_usd=cost_of(usage, prices)) if prices else usage


def require_price(task: Task) -> None:
    """Raise GiveUp if the job's cost is limited but cannot be computed, so that the limit could not be enforced."""
    config = task.config
    known = task.prices or provider_spec(config.provider).reports_cost or list_price_of_job(task)
    if config.max_cost_usd is not None and not known:
        message = (
            f"maxCostUsd is set, but the price of the model {config.model!r} is unknown: "
            "add `prices` to its AiModel, or limit the job with maxTokens"
        )
        raise GiveUp(FailedCode.BUDGET, message)


def list_price_of_job(task: Task, model: str | None = None) -> Prices | None:
    """Return the list price of the job's model, or else of `model`, if it is known."""
    provider = task.config.provider
    return list_price(provider, task.config.model) or list_price(provider, model)
