"""List prices of models whose program reports only tokens: the file `list_prices.json`."""

import re
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from labrats.model.ai_model import AiModelSpec, Prices
from labrats.model.provider_spec import provider_spec
from labrats.model.record import Record

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


def has_unknown_cost(spec: AiModelSpec) -> bool:
    """Return whether the jobs of a model of the provider's own servers have no cost, as no price is known."""
    provider = provider_spec(spec.provider)
    names_its_model = spec.model != spec.provider
    return (
        spec.prices is None
        and not (provider.reports_cost or provider.is_self_hosted)
        and names_its_model
        and list_price(spec.provider, spec.model) is None
    )
