"""The subset of JSON Schema that servers of the Responses API accept as `strict`, which Codex always asks for.

A server refuses a request with another schema, so that the run would fail.
"""

from collections.abc import Mapping
from typing import Any, Final

_DEEPEST: Final = 5
_MOST_PROPERTIES: Final = 100
_KEYWORDS: Final = frozenset(
    {
        *("type", "title", "description", "enum", "const", "anyOf", "$ref", "$defs", "$schema"),
        *("properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
        *("pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
)


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Return whether the schema is surely in the subset: an object whose properties are all required and no others."""
    return schema.get("type") == "object" and "anyOf" not in schema and _is_strict(schema, 0)


def _is_strict(schema: Any, depth: int) -> bool:
    if not isinstance(schema, Mapping) or not schema or not schema.keys() <= _KEYWORDS or depth > _DEEPEST:
        return False
    if not schema.keys() & {"type", "enum", "const", "anyOf", "$ref"}:
        return False
    fields = schema.get("properties", {})
    is_object = "object" in _types_of(schema) or "properties" in schema
    is_closed = schema.get("additionalProperties") is False and sorted(schema.get("required", [])) == sorted(fields)
    if (is_object and not is_closed) or len(fields) > _MOST_PROPERTIES:
        return False
    if "array" in _types_of(schema) and "items" not in schema:
        return False
    parts = [*fields.values(), *schema.get("anyOf", []), *schema.get("$defs", {}).values()]
    return all(_is_strict(each, depth + 1) for each in ([*parts, schema["items"]] if "items" in schema else parts))


def _types_of(schema: Mapping[str, Any]) -> list[Any]:
    types = schema.get("type", [])
    return types if isinstance(types, list) else [types]


def without_dialect(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema without the name of its dialect, which some programs and servers refuse."""
    return {name: value for name, value in schema.items() if name != "$schema"}
