"""What a run costs, where its provider does not say so itself."""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from labrats.model.ai_model import Prices
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import Task

LIST_PRICES: Final[Mapping[str, Prices]] = {
    "gpt-5": Prices(input=1.25, output=10, cache_read=0.125),
    "gpt-5-codex": Prices(input=1.25, output=10, cache_read=0.125),
    "gpt-5.1": Prices(input=1.25, output=10, cache_read=0.125),
    "gpt-5.1-codex": Prices(input=1.25, output=10, cache_read=0.125),
    "gpt-5-mini": Prices(input=0.25, output=2, cache_read=0.025),
    "gpt-5-nano": Prices(input=0.05, output=0.4, cache_read=0.005),
    "o3": Prices(input=2, output=8, cache_read=0.5),
    "o4-mini": Prices(input=1.1, output=4.4, cache_read=0.275),
}
"""The provider's list prices of models whose program reports tokens only. An AiModel's `prices` go before them."""

_PRICED_BY_THEMSELVES: Final = frozenset({"claude", "mock"})
"""Their programs say what they cost, at the end at least."""


def priced(usage: Usage, task: Task) -> Usage:
    """`usage` with its cost: by the AiModel's prices, as the provider says, or by the list; None when nobody knows."""
    prices = task.prices
    if prices is None and usage.cost_usd is None:
        prices = _list_prices(task)
    return replace(usage, cost_usd=cost_of(usage, prices)) if prices else usage


def cost_of(usage: Usage, prices: Prices) -> float:
    """In US dollars, unrounded. usage: as the provider counted it, tokens from a cache apart from the fresh ones."""
    millions = (
        usage.input_tokens * prices.input
        + usage.output_tokens * prices.output
        + usage.cache_read_tokens * prices.cache_read
    )
    return millions / 1_000_000


def require_price(task: Task) -> None:
    """Raises GiveUp when the job's cost is limited, and nobody knows what it costs: the limit could not be kept."""
    config = task.config
    known = task.prices or config.provider in _PRICED_BY_THEMSELVES or _list_prices(task)
    if config.max_cost_usd is not None and not known:
        message = (
            f"maxCostUsd is set, but the price of the model {config.model!r} is not known: "
            "give its AiModel `prices`, or limit the job by maxTokens"
        )
        raise GiveUp(FailedCode.BUDGET, message)


def _list_prices(task: Task) -> Prices | None:
    return LIST_PRICES.get(task.config.model or "") if task.config.provider == "codex" else None
