"""A configured model, and the slots in which its jobs run."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

from msgspec.structs import replace

from labrats.model.condition import Condition
from labrats.model.config import Sampling
from labrats.model.job import Job, Usage
from labrats.model.model_names import is_named
from labrats.model.record import Record, Resource, seniority

DEFAULT_SLOTS: Final = 4
"""The slots of an AiModel that sets none."""


_CACHE_READ_SHARE: Final = 0.1
"""Ratio of the usual prices for input from the cache and for other input, at Anthropic and at OpenAI."""


class Prices(Record):
    """Prices in US dollars per million tokens.

    cache_read:  for input read from the provider's cache; None: unknown.
    cache_write: for input written to the provider's cache; None: the price of `input`.
    """

    input: float = 0.0
    output: float = 0.0
    cache_read: float | None = None
    cache_write: float | None = None

    @property
    def effective_cache_read(self) -> float:
        """The price `cache_read`; without one the usual price, as assumed."""
        return self.input * _CACHE_READ_SHARE if self.cache_read is None else self.cache_read

    def complete(self) -> "Prices":
        """Return the prices with those that count where one is unknown."""
        cache_write = self.input if self.cache_write is None else self.cache_write
        return replace(self, cache_read=self.effective_cache_read, cache_write=cache_write)

    @property
    def has_free_cache(self) -> bool:
        """True if input costs something, but nothing once it is read from the cache."""
        return self.input > 0 and self.cache_read == 0


_HOUR_FACTOR: Final = 1.6
"""Ratio of the prices for input that is cached for an hour and for five minutes, in the Messages API."""


def cost_of(usage: Usage, prices: Prices, hour_cache_tokens: int = 0) -> float:
    """Return the cost in US dollars, unrounded.

    hour_cache_tokens: share of the tokens written to a cache that stay for an hour, which cost more.
    """
    written = min(usage.cache_write_tokens, usage.input_tokens)
    cache_write = prices.input if prices.cache_write is None else prices.cache_write
    millions = (
        (usage.input_tokens - written) * prices.input
        + written * cache_write
        + hour_cache_tokens * (prices.cache_write or 0) * (_HOUR_FACTOR - 1)
        + usage.output_tokens * prices.output
        + usage.cache_read_tokens * prices.effective_cache_read
    )
    return millions / 1_000_000


class AiModelSpec(Record):
    """The definition of a model. Jobs that resolve to its provider and model run on it.

    slots:    the number of concurrent attempts; 0 pauses the model.
    sampling: defaults for its jobs.
    command:  the program of the provider `acp` with its arguments; None for other providers.
    environment: environment variables of that program, in which `{url}`, `{token}` and `{model}` stand for the model's
        server, a token for it, and the model.
    """

    provider: str
    model: str
    slots: int = DEFAULT_SLOTS
    endpoint: str | None = None
    credentials_ref: str | None = None
    prices: Prices | None = None
    sampling: Sampling | None = None
    command: tuple[str, ...] | None = None
    environment: dict[str, str] | None = None


class AiModelStatus(Record):
    """The observed state of a model. conditions: its problems, present and past."""

    conditions: tuple[Condition, ...] = ()


class AiModel(Resource):
    """A configured model, with its slots."""

    spec: AiModelSpec
    status: AiModelStatus = AiModelStatus()

    @property
    def claim(self) -> str:
        return f"the provider {self.spec.provider!r} with the model {self.spec.model!r}"


def ai_models_in_use(ai_models: Iterable[AiModel]) -> dict[tuple[str, str], AiModel]:
    """Return the AiModel of each provider and model. Of several, which only kubectl can create, the oldest counts."""
    found: dict[tuple[str, str], AiModel] = {}
    for ai_model in sorted(ai_models, key=seniority):
        found.setdefault((ai_model.spec.provider, ai_model.spec.model), ai_model)
    return found


def alias_of(provider: str, model: str | None, ai_models: Iterable[AiModel]) -> str | None:
    """Return the model of the only AiModel of the provider that stands for `model` by an alias, such as `opus`.

    None if there is none or several, or if an AiModel has the very name.
    """
    names = {each.spec.model for each in ai_models if each.spec.provider == provider}
    if model is None or model in names:
        return None
    aliases = [name for name in names if is_named(model, name, provider)]
    return aliases[0] if len(aliases) == 1 else None


def most_similar(ai_models: Iterable[AiModel], provider: str, model: str) -> list[AiModel]:
    """Sort `ai_models` by similarity to the provider and model, the most similar first."""

    def similarity(each: AiModel) -> tuple[bool, float]:
        return each.spec.provider == provider, SequenceMatcher(None, each.spec.model, model).ratio()

    return sorted(ai_models, key=similarity, reverse=True)


class Slots(Record):
    """The slots of an AiModel, or of a provider and model without one."""

    name: str
    count: int
    ai_model: AiModel | None = None


def slots_for(job: Job, ai_models: dict[tuple[str, str], AiModel], default_slots: int) -> Slots:
    """Return the slots that `job` competes for. `ai_models` is keyed by (provider, model)."""
    provider, model = job.resolved.provider, job.resolved.queue_model
    if ai_model := ai_models.get((provider, model)):
        return Slots(name=ai_model.name, count=ai_model.spec.slots, ai_model=ai_model)
    return Slots(name=f"{provider}/{model}", count=default_slots)
