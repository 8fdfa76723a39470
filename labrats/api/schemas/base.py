"""The bases of what callers send and get: camelCase, no unknown fields, no silent conversions."""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from labrats.api.schemas.patterns import NAME, ONE_LINE

LONGEST_LABEL: Final = 200

Label = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_LABEL, pattern=ONE_LINE)]
"""A short text on one line."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=NAME)]
"""The name of a resource: lower-case letters, digits, dashes and dots, as Kubernetes has it."""


Provider = Literal["claude", "codex", "vllm", "gemma", "qwen", "mock"]
Effort = Literal["low", "medium", "high"]


class RequestBody(BaseModel):
    """What a caller may send, no field more."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


class PatchBody(RequestBody):
    """Changes to a resource. Read-only fields of a GET's answer are ignored, so that it can be sent back."""

    read_only: ClassVar[frozenset[str]] = frozenset()
    """Their names as callers write them."""

    @model_validator(mode="before")
    @classmethod
    def _ignore_read_only(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: each for name, each in value.items() if name not in cls.read_only}


def optional(**options: Any) -> Any:
    """A field that may be missing but is never null. Where it is missing, its value means nothing."""
    return Field(default=None, json_schema_extra=_without_default, **options)


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


class ResponseBody(BaseModel):
    """What a caller gets. Describes answers in the OpenAPI document; the answers themselves are written directly:
    nothing is made of it before somebody asks for the document.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", defer_build=True)
