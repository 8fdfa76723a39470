"""Every field of a custom resource wrong in turn, in every way that its type allows."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from labrats.manifests.crds import custom_resource_definitions
from labrats.model.record import Resource

NO_YEAR: Final = "0000-01-01T00:00:00Z"
"""A time to the API server, and none to anybody else."""

Place = tuple[str | int, ...]
"""Of a value: the names of the fields that lead to it, and the numbers of the items."""

_KEYS: Final = {"providers": "mock", "executorResources": "limits", "repoOverrides": "octo/rats"}
"""One that such a mapping may have."""


def deep(levels: int) -> msgspec.Raw:
    """An object in an object and so on, deeper than an encoder may go."""
    return msgspec.Raw(b'{"a":' * levels + b"{}" + b"}" * levels)


def every_field_wrong_in_turn(kind: type[Resource]) -> Iterator[tuple[Place, Any]]:
    """Where in a resource of this kind which value is to be."""
    (definition,) = [each for each in custom_resource_definitions() if each["spec"]["names"]["kind"] == kind.kind()]
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in ("spec", "status"):
        if part in schema["properties"]:
            yield from _odd_values(schema["properties"][part], (part,))


def with_value(values: Any, place: Place, value: Any) -> Any:
    """`values` with `value` at `place`."""
    if not place:
        return value
    first, *rest = place
    if isinstance(first, int):
        return [with_value(values[first] if values else {}, tuple(rest), value)]
    values = values or {}
    return values | {first: with_value(values.get(first), tuple(rest), value)}


def _odd_values(schema: dict[str, Any], place: Place) -> Iterator[tuple[Place, Any]]:
    for inner, part in _parts(schema, place):
        yield from _odd_values(part, (*place, inner))
    for value in _odd_values_of_type(schema):
        yield place, value


def _parts(schema: dict[str, Any], place: Place) -> Iterator[tuple[str | int, dict[str, Any]]]:
    yield from schema.get("properties", {}).items()
    if "items" in schema:
        yield 0, schema["items"]
    if "additionalProperties" in schema:
        yield _KEYS.get(str(place[-1]), "a"), schema["additionalProperties"]


def _odd_values_of_type(schema: dict[str, Any]) -> list[Any]:
    match schema:
        case {"format": "date-time"}:
            limits = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"]
            return [None, NO_YEAR, *limits, "2016-12-31T23:59:60Z", "2030-01-01t00:00:00z"]
        case {"enum": values}:
            return [None, "", "unheard-of", *values]
        case {"type": "string"}:
            long = "x" * schema.get("maxLength", 200_000)
            return [None, 7, "", "-", "../../etc/passwd", "\u202e\U0001f400", long, f"{long}x"]
        case {"type": "integer" | "number" as kind}:
            least, most = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
            return [None, "1", least, most, least - 1, most + 1, -1, 0, 0.1, *([1e308, 5e-324] * (kind == "number"))]
        case {"type": "boolean"}:
            return [None, "yes", True, False]
        case {"type": "array"}:
            return [None, {}, [], [None], [{}], ["x"] * 100, ["x"] * 101]
    free = [{"": None}, {"name": "none", "key": "none"}, {"gitRepo": "none"}]
    return [None, 7, [], {}, *free, deep(90), deep(150), deep(3000)]
