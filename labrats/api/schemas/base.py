"""Base models of requests and responses: camelCase, no unknown fields, no implicit conversions."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import msgspec
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from labrats.api.schemas.patterns import NAME, ONE_LINE
from labrats.model.errors import Problems
from labrats.model.isolation import Isolation

LONGEST_LABEL: Final = 200
MAX_INTEGER: Final = 2**63
"""Exclusive upper bound of integers in requests. The lower bound is its negative."""

Label = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_LABEL, pattern=ONE_LINE)]
"""A short text of one line."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=NAME)]
"""The name of a resource, as in Kubernetes: lower-case letters, digits, dashes and dots."""

Provider = Literal["claude", "codex", "acp", "openai", "vllm", "gemma", "qwen", "mock"]
IsolationName = Literal["process", "sandbox", "container", "vm"]


def _isolation(name: str) -> Isolation:
    # Not the class itself as a validator: pydantic cannot read the signature of an enum of Python 3.12 or later.
    return Isolation(name)


IsolationLevel = Annotated[
    IsolationName,
    AfterValidator(_isolation),
    Field(
        description="The least isolation of the agent: `process` (a process of the engine's user), `sandbox` "
        "(bubblewrap), `container` (a restricted pod) or `vm` (a pod with a kernel of its own). The job gets the "
        "weakest level of the engine that stops as much, and 422 if there is none. Only an admin's job can have less "
        "than the engine's or its agent's default.",
        examples=["sandbox"],
    ),
]


def _refuse_number(value: Any) -> Any:
    """Refuse what pydantic would read as seconds since 1970, and what is no text."""
    if not isinstance(value, str) or not re.match(r"\d{4}-", value):
        raise ValueError("must be a time, such as 2030-01-01T12:00:00Z")
    return value


Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_refuse_number)]
"""A time in a request."""


class RequestBody(BaseModel):
    """The body of a request. Unknown fields are refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


class PatchBody(RequestBody):
    """Changes to a resource. It may have read-only fields, so that the response of a GET can be sent back."""

    read_only: ClassVar[frozenset[str]] = frozenset()
    """The names of the read-only fields, in camelCase. `check_read_only` compares them with the resource."""

    _sent_read_only: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _set_read_only_apart(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, dict):
            return handler(value)
        body = handler({name: field for name, field in value.items() if name not in cls.read_only})
        body._sent_read_only = {name: field for name, field in value.items() if name in cls.read_only}  # noqa: SLF001
        return body

    def check_read_only(self, view: Mapping[str, Any]) -> None:
        """Raise Invalid for a read-only field with another value than the resource has. view: its JSON as records."""
        problems = Problems()
        for name, sent in self._sent_read_only.items():
            stored = msgspec.to_builtins(view.get(name))
            if sent != stored:
                shown = json.dumps(stored, ensure_ascii=False)
                problems.add(name, f"cannot be changed: it is {shown}; leave the field out")
        problems.check()


def int_if_whole(number: float) -> int | float:
    """Return 3.0 as 3. JSON has one type of number, and some clients write all numbers with a decimal point."""
    return int(number) if number.is_integer() and abs(number) < MAX_INTEGER else number


def optional(**options: Any) -> Any:
    """Return a field that may be missing but not null. Its default None only marks it as missing."""
    return Field(default=None, json_schema_extra=_without_default, **options)


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


class ResponseBody(BaseModel):
    """The body of a response, for the OpenAPI document only.

    Routes write responses directly. The models are built when the document is first requested.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", defer_build=True)
