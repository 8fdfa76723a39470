"""Find the prices of a request by the model that answers it, which need not be the job's."""

from labrats.executor.prices import list_prices
from labrats.model.ai_model import Prices
from labrats.model.model_names import is_named
from labrats.model.protocol import Task


def prices_of(model: str | None, task: Task) -> Prices | None:
    """Return the prices of the AiModel that names this model, else those of the job's model, if any are known.

    A name counts more than an alias of it, and the job's own model more than another. A request without a model has no
    prices.
    """
    if not model:
        return None
    own, provider = task.config.model or "", task.config.provider or ""
    names = [own, *task.other_prices]
    exact = (name for name in names if is_named(model, name))
    aliases = (name for name in names if is_named(model, name, provider))
    found = next(exact, None) or next(aliases, None)
    return task.other_prices.get(found or own, task.prices) or list_prices(task, model)
