"""Bodies of requests whose fields come from a record."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta
from pydantic import Field, create_model

from labrats.api.schemas.base import RequestBody, Time
from labrats.model.record import Record

Body = TypeVar("Body", bound=RequestBody)
Fields = TypeVar("Fields", bound=Record)


def with_fields_of(record: type[Record]) -> Callable[[type[Body]], type[Body]]:
    """Return a decorator that adds the fields of a record to a body, but for those that the body declares itself.

    Descriptions, examples and limits come from the `Meta` of each field.
    """

    def extend(body: type[Body]) -> type[Body]:
        fields: dict[str, Any] = {
            field.name: (_request_type(field.type), _field(field))
            for field in msgspec.structs.fields(record)
            if field.name not in body.model_fields
        }
        return create_model(body.__name__, __base__=body, __module__=body.__module__, __doc__=body.__doc__, **fields)

    return extend


def record_of(record: type[Fields], body: RequestBody) -> Fields:
    """Return the fields of a body that a record has."""
    return record(**{field.name: getattr(body, field.name) for field in msgspec.structs.fields(record)})


def _request_type(annotation: Any) -> Any:
    """Return the type of a field in a request: a time is text with a zone."""
    if get_origin(annotation) is Annotated:
        return _request_type(get_args(annotation)[0])
    if annotation == datetime | None:
        return Time | None
    return annotation


def _field(field: msgspec.structs.FieldInfo) -> Any:
    meta = next((each for each in get_args(field.type) if isinstance(each, Meta)), Meta())
    default = ... if field.default is NODEFAULT else field.default
    return Field(
        default=default, description=meta.description, examples=meta.examples, ge=meta.ge, le=meta.le,
        max_length=meta.max_length, pattern=meta.pattern,
    )  # fmt: skip
