"""Sampling settings of local models."""

from typing import Any, Final, Literal

from pydantic import Field

from labrats.api.schemas.base import RequestBody, ResponseBody, optional
from labrats.model.config import Sampling

MAX_SEED: Final = 2**32 - 1
MAX_TOP_K: Final = 1_000_000

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class SamplingBody(RequestBody):
    """Sampling settings of a model, for local providers. The model's server decides absent fields."""

    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        allow_inf_nan=False,
        description="Randomness; 0 picks the most likely token each time.",
        examples=[0.2],
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Samples only from the most likely tokens, up to this total probability.",
    )
    top_k: int | None = Field(
        default=None,
        ge=0,
        le=MAX_TOP_K,
        description="Samples only from this number of most likely tokens; 0 means all.",
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Samples only from tokens with at least this share of the most likely token's probability.",
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, allow_inf_nan=False, description="Penalty for tokens that already occur."
    )
    frequency_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        allow_inf_nan=False,
        description="Penalty for tokens, in proportion to how often they occur.",
    )
    repetition_penalty: float | None = Field(
        default=None,
        gt=0,
        le=2,
        allow_inf_nan=False,
        description="Factor against repetition, for vLLM and llama.cpp; 1 means none.",
    )
    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, description="The same seed gives the same answer, if the server supports that."
    )
    reasoning_effort: ReasoningEffort | None = Field(default=None, description="Amount of reasoning before the answer.")


class SamplingView(ResponseBody):
    """Sampling settings of a model. Unset fields are absent."""

    temperature: float = optional()
    top_p: float = optional()
    top_k: int = optional()
    min_p: float = optional()
    presence_penalty: float = optional()
    frequency_penalty: float = optional()
    repetition_penalty: float = optional()
    seed: int = optional()
    reasoning_effort: str = optional()


def sampling(body: SamplingBody | None) -> Sampling | None:
    """Convert the request's settings to the engine's type. Return None if no field is set."""
    fields: dict[str, Any] = body.model_dump(exclude_none=True) if body else {}
    return Sampling(**fields) if fields else None
