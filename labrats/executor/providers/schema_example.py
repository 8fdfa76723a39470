"""A value that matches a simple JSON Schema, for the mock provider."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

_DEEPEST: Final = 20
_TEXT: Final = "example"


def as_json(value: Any) -> str:
    """Return a value as JSON, as an agent writes it."""
    return msgspec.json.encode(value).decode()


def example_of(schema: Mapping[str, Any]) -> Any:
    """Return a value for a schema: its first example, or the least value of its type with the required properties.

    A schema with rules that contradict this, such as `not`, gets a value that does not match it.
    """
    return _example(schema, schema, 0)


def _example(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    for name, found in (("const", schema.get("const")), ("default", schema.get("default"))):
        if name in schema:
            return found
    for name in ("examples", "enum"):
        if values := schema.get(name):
            return values[0]
    if isinstance(reference := schema.get("$ref"), str):
        return _example(_at(root, reference), root, depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        if alternatives := schema.get(name):
            return _example(alternatives[0], root, depth + 1)
    return _example_of_type(schema, root, depth)


def _example_of_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    types = schema.get("type", "object" if "properties" in schema else "string")
    match types[0] if isinstance(types, list) and types else types:
        case "object":
            fields = schema.get("properties", {})
            return {name: _example(fields.get(name, {}), root, depth + 1) for name in schema.get("required", ())}
        case "array":
            return [_example(schema.get("items", {}), root, depth + 1)] * min(int(schema.get("minItems", 0)), 100)
        case "string":
            text = _TEXT + "." * max(0, min(int(schema.get("minLength", 0)), 10_000) - len(_TEXT))
            return text[: int(schema.get("maxLength", len(text)))]
        case "integer" | "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
            return min(least, schema.get("maximum", least))
        case "boolean":
            return True
    return None


def _at(root: Mapping[str, Any], reference: str) -> Any:
    """Return the part of the schema to which a JSON Pointer leads; None for another reference."""
    value: Any = root
    for key in reference.removeprefix("#").split("/")[1:]:
        name = key.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, Sequence) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value
