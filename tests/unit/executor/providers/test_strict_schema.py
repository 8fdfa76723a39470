"""Tests of the subset of JSON Schema that servers accept as strict."""

from typing import Any

import pytest

from labrats.executor.providers.strict_schema import is_strict


def an_object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    usual = {"type": "object", "required": list(properties), "additionalProperties": False}
    return usual | {"properties": properties} | more


NUMBER = {"type": "integer", "minimum": 0}


@pytest.mark.parametrize(
    "schema",
    [
        an_object({"risk": NUMBER, "kind": {"enum": ["a", "b"]}}),
        an_object({"items": {"type": "array", "items": an_object({"name": {"type": ["string", "null"]}})}}),
        an_object({"a": {"$ref": "#/$defs/n"}, "b": {"anyOf": [NUMBER, {"type": "null"}]}}, **{"$defs": {"n": NUMBER}}),
    ],
    ids=str,
)
def test_closed_object_is_strict(schema: dict[str, Any]) -> None:
    assert is_strict(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array", "items": NUMBER},
        {"type": "object"},
        an_object({"risk": NUMBER}, additionalProperties=True),
        an_object({"risk": NUMBER}, required=[]),
        an_object({"risk": NUMBER}, anyOf=[NUMBER]),
        an_object({"risk": {}}),
        an_object({"risk": True}),
        an_object({"risk": {"type": "object"}}),
        an_object({"risk": {"type": "array"}}),
        an_object({"risk": {"type": "array", "items": {"type": "object"}}}),
        an_object({"risk": {"not": NUMBER}}),
        an_object({"risk": {"allOf": [NUMBER]}}),
        an_object({"risk": {"anyOf": [{"type": "object"}]}}),
        an_object({"risk": NUMBER}, **{"$defs": {"n": {"type": "object"}}}),
        an_object(
            {"a": an_object({"b": an_object({"c": an_object({"d": an_object({"e": an_object({"f": NUMBER})})})})})}
        ),
    ],
    ids=str,
)
def test_other_schema_is_not_strict(schema: dict[str, Any]) -> None:
    assert not is_strict(schema)
