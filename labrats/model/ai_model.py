"""A model that jobs run on, and how many of them at once."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

from labrats.model.condition import Condition
from labrats.model.config import Sampling
from labrats.model.job import Job
from labrats.model.record import Record, Resource, seniority

DEFAULT_SLOTS: Final = 4
"""Of an AiModel that does not say how many it has."""


class Prices(Record):
    """US dollars per million tokens. cache_write: of input written to the provider's cache; None: as `input`."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float = 0.0
    cache_write: float | None = None


class AiModelSpec(Record):
    """provider and model: what jobs must resolve to to run here. slots: attempts at once; 0 pauses the model.

    sampling: of its jobs, where they do not say otherwise.
    """

    provider: str
    model: str
    slots: int = DEFAULT_SLOTS
    endpoint: str | None = None
    credentials_ref: str | None = None
    prices: Prices | None = None
    sampling: Sampling | None = None


class AiModelStatus(Record):
    """conditions: what is wrong with it, where that is so or was."""

    conditions: tuple[Condition, ...] = ()


class AiModel(Resource):
    """A configured model."""

    spec: AiModelSpec
    status: AiModelStatus = AiModelStatus()

    @property
    def claim(self) -> str:
        return f"the provider {self.spec.provider!r} with the model {self.spec.model!r}"


def ai_models_in_use(ai_models: Iterable[AiModel]) -> dict[tuple[str, str], AiModel]:
    """The AiModel that stands for each provider and model. Of several, which only people can make, it is the oldest."""
    found: dict[tuple[str, str], AiModel] = {}
    for ai_model in sorted(ai_models, key=seniority):
        found.setdefault((ai_model.spec.provider, ai_model.spec.model), ai_model)
    return found


def nearest(ai_models: Iterable[AiModel], provider: str, model: str) -> list[AiModel]:
    """Sort `ai_models`, those most like the provider and model first."""

    def likeness(each: AiModel) -> tuple[bool, float]:
        return each.spec.provider == provider, SequenceMatcher(None, each.spec.model, model).ratio()

    return sorted(ai_models, key=likeness, reverse=True)


class Slots(Record):
    """Where a job takes its slot: an AiModel, or the implicit one of its provider and model."""

    name: str
    count: int
    ai_model: AiModel | None = None


def slots_for(job: Job, ai_models: dict[tuple[str, str], AiModel], default_slots: int) -> Slots:
    """The slots that `job` competes for. `ai_models` is keyed by (provider, model)."""
    provider, model = job.resolved.provider, job.resolved.model
    if ai_model := ai_models.get((provider, model)):
        return Slots(name=ai_model.name, count=ai_model.spec.slots, ai_model=ai_model)
    return Slots(name=f"{provider}/{model}", count=default_slots)
