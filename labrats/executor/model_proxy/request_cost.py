"""Compute the cost of a request by the prices of the model that answers it, which need not be the job's."""

from typing import Final

from msgspec.structs import replace

from labrats.executor.model_proxy.allowed_models import is_named
from labrats.executor.prices import cost_of, list_prices
from labrats.model.ai_model import Prices
from labrats.model.job import Usage
from labrats.model.protocol import Task

_HOUR_FACTOR: Final = 1.6
"""Ratio of the prices for input that is cached for an hour and for five minutes, in the Messages API."""


def with_cost_of(model: str | None, usage: Usage, task: Task, hour_cache_tokens: int = 0) -> Usage:
    """Return the usage of a request with its cost, which is None if no price is known.

    model: the name in the request. hour_cache_tokens: share of the tokens written to a cache that stay for an hour.
    """
    prices = prices_of(model, task) if model else None
    if prices is None:
        return usage
    cost = cost_of(usage, prices)
    if prices.cache_write is not None:
        cost += hour_cache_tokens * prices.cache_write * (_HOUR_FACTOR - 1) / 1_000_000
    return replace(usage, cost_usd=cost)


def prices_of(model: str, task: Task) -> Prices | None:
    """Return the prices of the AiModel that names this model, else those of the job's model, if any are known.

    A name counts more than an alias of it, and the job's own model more than another.
    """
    own, provider = task.config.model or "", task.config.provider or ""
    names = [own, *task.other_prices]
    exact = (name for name in names if is_named(model, name))
    aliases = (name for name in names if is_named(model, name, provider))
    found = next(exact, None) or next(aliases, None)
    return task.other_prices.get(found or own, task.prices) or list_prices(task, model)
