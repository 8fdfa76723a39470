"""Invalid and extreme values for every field of a custom resource."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from labrats.manifests.crds import custom_resource_definitions
from labrats.model.record import Resource

NO_YEAR: Final = "0000-01-01T00:00:00Z"
"""A time that the API server accepts, and that no program can represent."""

Place = tuple[str | int, ...]
"""The path of a value: names of fields and indexes of items."""

_KEYS: Final = {"providers": "mock", "executorResources": "limits", "repoOverrides": "octo/rats"}
"""A valid key of each of these mappings."""


def deep(levels: int) -> msgspec.Raw:
    """Return nested objects, which may be deeper than an encoder supports."""
    return msgspec.Raw(b'{"a":' * levels + b"{}" + b"}" * levels)


def invalid_values_of(kind: type[Resource]) -> Iterator[tuple[Place, Any]]:
    """Yield a path and a value for each test of a resource of this kind."""
    (definition,) = [each for each in custom_resource_definitions() if each["spec"]["names"]["kind"] == kind.kind()]
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in ("spec", "status"):
        if part in schema["properties"]:
            yield from _invalid_values(schema["properties"][part], (part,))


def with_value(values: Any, place: Place, value: Any) -> Any:
    """Return `values` with `value` at `place`."""
    if not place:
        return value
    first, *rest = place
    if isinstance(first, int):
        return [with_value(values[first] if values else {}, tuple(rest), value)]
    values = values or {}
    return values | {first: with_value(values.get(first), tuple(rest), value)}


def _invalid_values(schema: dict[str, Any], place: Place) -> Iterator[tuple[Place, Any]]:
    for inner, part in _parts(schema, place):
        yield from _invalid_values(part, (*place, inner))
    for value in _invalid_values_of_type(schema):
        yield place, value


def _parts(schema: dict[str, Any], place: Place) -> Iterator[tuple[str | int, dict[str, Any]]]:
    yield from schema.get("properties", {}).items()
    if "items" in schema:
        yield 0, schema["items"]
    if "additionalProperties" in schema:
        yield _KEYS.get(str(place[-1]), "a"), schema["additionalProperties"]


def _invalid_values_of_type(schema: dict[str, Any]) -> list[Any]:
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
