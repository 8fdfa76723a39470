"""Concurrency keys in requests and responses."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from labrats.api.schemas.base import RequestBody, ResponseBody
from labrats.api.schemas.patterns import ONE_LINE
from labrats.model.concurrency import KEY_LENGTH, MAX_DEBOUNCE_SECONDS, Concurrency, OnNew


class ConcurrencyBody(RequestBody):
    """Jobs with the same key and owner never run at the same time."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=KEY_LENGTH, pattern=ONE_LINE)] = Field(
        description="The key. Placeholders are replaced once: `{{ agent }}`, `{{ repo }}` and `{{ number }}` (of the "
        "metadata), and those of instructions.",
        examples=["{{ repo }}#{{ number }}"],
    )
    on_new: Annotated[OnNew, Field(strict=False)] = Field(
        default=OnNew.QUEUE,
        description="The effect of the job on older ones of its key. `queue`: it waits for them. `supersede`: they are "
        "cancelled. `replaceWaiting`: those that wait are cancelled, and it waits for the one that runs.",
    )
    debounce_seconds: float = Field(
        default=0,
        ge=0,
        le=MAX_DEBOUNCE_SECONDS,
        allow_inf_nan=False,
        description="Seconds after its creation for which the job waits for newer ones.",
        examples=[30],
    )


class ConcurrencyView(ResponseBody):
    """The concurrency key of a job, and the effect of the job on older ones of the key."""

    key: str = Field(examples=["octocat/hello-world#7"])
    on_new: OnNew
    debounce_seconds: float = Field(examples=[30])


def concurrency_from(body: ConcurrencyBody | None) -> Concurrency | None:
    """Return the concurrency in the engine's form."""
    return Concurrency(**body.model_dump()) if body else None


def concurrency_view(concurrency: Concurrency | None) -> dict[str, Any] | None:
    if concurrency is None:
        return None
    return {
        "key": concurrency.key,
        "onNew": concurrency.on_new,
        "debounceSeconds": concurrency.debounce_seconds,
    }
