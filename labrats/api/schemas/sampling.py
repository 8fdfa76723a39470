"""Sampling settings of local models, as the API has them."""

from typing import Any, Final, Literal

from pydantic import Field

from labrats.api.schemas.base import RequestBody, ResponseBody, optional
from labrats.model.config import Sampling

LARGEST_SEED: Final = 2**32 - 1
LARGEST_TOP_K: Final = 1_000_000

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class SamplingBody(RequestBody):
    """Sampling settings of a model; the server decides absent fields. Local providers only."""

    temperature: float | None = Field(
        default=None, ge=0, le=2, allow_inf_nan=False, description="0: the likeliest word each time.", examples=[0.2]
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, allow_inf_nan=False, description="Only the likeliest words, of so much probability."
    )
    top_k: int | None = Field(
        default=None, ge=0, le=LARGEST_TOP_K, description="Only so many of the likeliest words; 0: all."
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Only words that are so probable beside the likeliest.",
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, allow_inf_nan=False, description="Against words that were used already."
    )
    frequency_penalty: float | None = Field(
        default=None, ge=-2, le=2, allow_inf_nan=False, description="Against words, the more often they were used."
    )
    repetition_penalty: float | None = Field(
        default=None, gt=0, le=2, allow_inf_nan=False, description="1: none. A factor that vLLM and llama.cpp have."
    )
    seed: int | None = Field(
        default=None, ge=0, le=LARGEST_SEED, description="The same seed gives the same answer, where the server can."
    )
    reasoning_effort: ReasoningEffort | None = Field(default=None, description="How much the model thinks before.")


class SamplingView(ResponseBody):
    """Sampling settings of a model. Fields that the server decides are absent."""

    temperature: float = optional()
    top_p: float = optional()
    top_k: int = optional()
    min_p: float = optional()
    presence_penalty: float = optional()
    frequency_penalty: float = optional()
    repetition_penalty: float = optional()
    seed: int = optional()
    reasoning_effort: str = optional()


def sampling(asked: SamplingBody | None) -> Sampling | None:
    """Return the same as the engine has it."""
    given: dict[str, Any] = asked.model_dump(exclude_none=True) if asked else {}
    return Sampling(**given) if given else None
