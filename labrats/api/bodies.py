"""The bases of what callers send and get: camelCase, no unknown fields, no silent conversions."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

_PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"

Label = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_PRINTABLE)]
"""A short text on one line."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of a resource: lower-case letters, digits, dashes and dots, as Kubernetes has it."""


class RequestBody(BaseModel):
    """What a caller may send, no field more."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True)


class ResponseBody(BaseModel):
    """What a caller gets. Describes answers in the OpenAPI document; the answers themselves are written directly."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")
