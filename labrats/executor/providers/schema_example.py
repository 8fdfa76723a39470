"""A value that matches a simple JSON Schema, for the mock provider."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

_DEEPEST: Final = 20
_LARGEST: Final = 10_000
"""Most parts of an example. The largest value that a job may have is smaller."""

_TEXT: Final = "example"


def as_json(value: Any) -> str:
    """Return a value as JSON, as an agent writes it."""
    return msgspec.json.encode(value).decode()


def example_of(schema: Mapping[str, Any]) -> Any:
    """Return a value for a schema: its first example, or the least value of its type with the required properties.

    A schema with rules that contradict this, such as `not`, gets a value that does not match it.
    """
    return _Example(schema).of(schema, 0)


class _Example:
    """An example of a schema, up to a size. root: the whole schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._parts_left = _LARGEST

    def of(self, schema: Any, depth: int) -> Any:
        """Return a value for a part of the schema; None once the example is too large."""
        self._parts_left -= 1
        if not isinstance(schema, Mapping) or depth > _DEEPEST or self._parts_left < 0:
            return None
        for name, found in (("const", schema.get("const")), ("default", schema.get("default"))):
            if name in schema:
                return found
        for name in ("examples", "enum"):
            if values := schema.get(name):
                return values[0]
        if isinstance(reference := schema.get("$ref"), str):
            return self.of(_at(self._root, reference), depth + 1)
        for name in ("anyOf", "oneOf", "allOf"):
            if alternatives := schema.get(name):
                return self.of(alternatives[0], depth + 1)
        return self._of_type(schema, depth)

    def _of_type(self, schema: Mapping[str, Any], depth: int) -> Any:
        types = schema.get("type", "object" if "properties" in schema else "string")
        match types[0] if isinstance(types, list) and types else types:
            case "object":
                fields = schema.get("properties", {})
                return {name: self.of(fields.get(name, {}), depth + 1) for name in schema.get("required", ())}
            case "array":
                length = min(int(schema.get("minItems", 0)), 100)
                return [self.of(schema.get("items", {}), depth + 1) for _ in range(length) if self._parts_left > 0]
            case "string":
                text = _TEXT + "." * max(0, min(int(schema.get("minLength", 0)), 10_000) - len(_TEXT))
                self._parts_left -= len(text) // len(_TEXT)
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
