"""Bodies of requests whose fields come from a record."""

from datetime import UTC, datetime
from typing import Annotated

import pytest
from msgspec import Meta
from pydantic import Field, ValidationError

from labrats.api.schemas.base import RequestBody
from labrats.api.schemas.record_fields import record_of, with_fields_of
from labrats.model.record import Record


class Stored(Record):
    """A record."""

    level: int = 1
    first_seen: Annotated[datetime | None, Meta(description="The first time.")] = None
    share: Annotated[float | None, Meta(ge=0, le=1)] = None


@with_fields_of(Stored)
class Sent(RequestBody):
    """A body."""

    level: int = Field(default=1, ge=1, description="Its own.")


def test_body_has_the_fields_of_the_record_and_keeps_its_own() -> None:
    properties = Sent.model_json_schema()["properties"]
    assert list(properties) == ["level", "firstSeen", "share"]
    assert (properties["level"]["minimum"], properties["level"]["description"]) == (1, "Its own.")
    assert properties["firstSeen"]["description"] == "The first time."
    assert Sent.__doc__ == "A body."


def test_values_of_the_body_are_those_of_the_record() -> None:
    body = Sent.model_validate_json('{"level": 2, "firstSeen": "2030-01-01T12:00:00Z"}')
    assert record_of(Stored, body) == Stored(level=2, first_seen=datetime(2030, 1, 1, 12, tzinfo=UTC))
    assert record_of(Stored, Sent()) == Stored()


@pytest.mark.parametrize(
    "text", ['{"share": 2}', '{"firstSeen": 5}', '{"firstSeen": "2030-01-01T12:00:00"}', '{"x": 1}']
)
def test_limits_of_the_record_apply(text: str) -> None:
    with pytest.raises(ValidationError):
        Sent.model_validate_json(text)
