"""List prices of models whose program reports only tokens: the file `list_prices.json`."""

import re
from functools import cache
from pathlib import Path
from typing import Final, Literal

import msgspec

from labrats.model.ai_model import AiModelSpec, Prices
from labrats.model.provider_spec import provider_spec
from labrats.model.record import Record

PriceSource = Literal["own", "list", "program", "unknown"]

_FILE: Final = Path(__file__).with_name("list_prices.json")
_DATE: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")


class ListPrices(Record):
    """Prices by the full names of models, without a date. as_of: the month of the lists, such as 2026-11."""

    as_of: str
    models: dict[str, Prices]


@cache
def list_prices() -> ListPrices:
    """Return the list prices of this version of Labrats."""
    return msgspec.json.decode(_FILE.read_bytes(), type=ListPrices)


def list_price(provider: str | None, model: str | None) -> Prices | None:
    """Return the list price of a model. None if it is unknown, and for a provider whose program reports the cost."""
    if not model or not provider_spec(provider).has_list_prices:
        return None
    return list_prices().models.get(_DATE.sub("", model))


def price_source(spec: AiModelSpec) -> PriceSource:
    """Return whose prices make the cost of a model's jobs.

    own: its own. program: the provider's program reports the cost. list: list prices, which for a model with the name
    of its provider are those of the model that answers.
    """
    provider = provider_spec(spec.provider)
    if spec.prices is not None:
        return "own"
    if provider.reports_cost:
        return "program"
    is_any_model = provider.has_list_prices and spec.model == spec.provider
    return "list" if is_any_model or list_price(spec.provider, spec.model) else "unknown"
