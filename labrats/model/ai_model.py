"""A model that jobs run on, and how many of them at once."""

from labrats.model.job import Job
from labrats.model.record import Record, Resource


class Prices(Record):
    """US dollars per million tokens."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float = 0.0


class AiModelSpec(Record):
    """provider and model: what jobs must resolve to to run here. slots: attempts at once; 0 pauses the model."""

    provider: str
    model: str
    slots: int
    endpoint: str | None = None
    credentials_ref: str | None = None
    prices: Prices | None = None


class AiModel(Resource):
    """A configured model."""

    spec: AiModelSpec


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
