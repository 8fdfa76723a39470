"""Tests of result schemas: which are refused, and what is said about a value that does not match."""

import time
from pathlib import Path
from typing import Any

import pytest

from labrats.model.result_schema import MOST_PATTERNS, SCHEMA_BYTES, SCHEMA_DEPTH, problem_of_result_schema
from labrats.model.result_schema import problems_of_value as problems_of
from tests.support.loopback import QuietHandler, served_by


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


def chained(length: int) -> dict[str, Any]:
    links = {f"a{number}": {"$ref": f"#/$defs/a{number + 1}"} for number in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": links | {f"a{length}": {"type": "string"}}}


def patterns(number: int) -> dict[str, Any]:
    return {"properties": {f"p{each}": {"pattern": f"^{each}$"} for each in range(number)}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "array"},
        {"$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "$ref": "#/$defs/node"},
        {"pattern": r"^\d{4}-\d{2}$"},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        chained(1_000),
        nested(SCHEMA_DEPTH),
        patterns(MOST_PATTERNS),
        {"properties": {f"p{each}": {"pattern": rf"^\p{{L}}[\w.-]+{each}$"} for each in range(MOST_PATTERNS)}},
        {"properties": {f"p{each}": {"pattern": f"^.{{1,1000}}{each}$"} for each in range(4)}},
    ],
    ids=str,
)
def test_usable_schema_has_no_problem(schema: dict[str, Any]) -> None:
    assert problem_of_result_schema(schema) is None


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "strin"}, "type must be array, boolean, integer, null, number, object or string, or a list of these"),
        ({"properties": {"a": {"minimum": "1"}}}, 'at properties.a.minimum: "1" is not of type "number"'),
        ({"required": True}, 'at required: true is not of type "array"'),
        ({"$ref": "#/$defs/missing"}, "a `$ref` that must point into the schema, like `#/$defs/item`"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "nothing is fetched: Resource 'http://127.0.0.1:9/schema.json'"),
        ({"$ref": "file:///etc/passwd"}, "nothing is fetched: Resource 'file:///etc/passwd' is not present"),
        ({"$ref": "other.json"}, "nothing is fetched"),
        ({"$id": "http://127.0.0.1:9/a", "items": {"$ref": "b"}}, "nothing is fetched"),
        ({"$dynamicRef": "http://127.0.0.1:9/a"}, "nothing is fetched"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "must be a JSON Schema of the dialect 2020-12"),
        (
            {"properties": {"a": {"pattern": "(?=x)"}}},
            "properties.a.pattern must be a regular expression without look-",
        ),
        ({"pattern": r"(a)\1"}, "pattern must be a regular expression without look-around and back-references"),
        ({"patternProperties": {"(?!x)": {}}}, "patternProperties.(?!x) must be a regular expression"),
        ({"pattern": "((a{1,1000}){1,1000}){1,1000}"}, "not too large"),
        ({"properties": {f"p{each}": {"pattern": f"(a{{200}}){{99}}{each}"} for each in range(10)}}, "not too large"),
        (patterns(MOST_PATTERNS + 1), "must have at most 100 regular expressions"),
        (nested(SCHEMA_DEPTH + 1), "must be nested at most 64 levels deep"),
        ({"description": "x" * SCHEMA_BYTES}, "must be at most 64 KiB as JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_unusable_schema_is_refused_with_the_reason(schema: dict[str, Any], problem: str) -> None:
    assert problem in (problem_of_result_schema(schema) or "")


def test_nothing_is_fetched(tmp_path: Path) -> None:
    requests: list[str] = []

    class Schemas(QuietHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.answer(200, b'{"type": "string"}')

    (tmp_path / "schema.json").write_text('{"type": "string"}')
    with served_by(Schemas) as port:
        for reference in (f"http://127.0.0.1:{port}/schema.json", (tmp_path / "schema.json").as_uri()):
            assert problem_of_result_schema({"$ref": reference})
            assert problem_of_result_schema({"properties": {"a": {"$dynamicRef": reference}}})

    assert requests == []


def test_problem_names_the_place_and_the_rule_and_not_the_value() -> None:
    schema = {
        "properties": {"items": {"items": {"properties": {"price": {"type": "number"}}}}, "kind": {"enum": ["a", "b"]}},
        "required": ["name"],
    }

    found = problems_of(schema, {"items": [{"price": "s3cret"}], "kind": "s3cret"})

    assert sorted(found) == [
        '"name" is a required property (#/required)',
        'items[0].price: the value is not of type "number" (#/properties/items/items/properties/price/type)',
        'kind: the value is not one of "a" or "b" (#/properties/kind/enum)',
    ]


def test_only_the_first_problems_are_named() -> None:
    assert len(problems_of({"items": {"type": "string"}}, [0] * 10_000)) == 5


def test_value_that_matches_has_no_problem() -> None:
    assert not problems_of({"type": "object", "required": ["a"]}, {"a": None})


def test_regular_expression_takes_linear_time() -> None:
    started = time.monotonic()

    assert problems_of({"pattern": "^(a+)+$"}, "a" * 30_000 + "!")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("rule", ["unevaluatedProperties", "unevaluatedItems"])
def test_references_under_a_rule_about_the_rest_are_few(rule: str) -> None:
    """The validator would compile such a schema in a time, and to a size, that double with each level."""
    levels = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2, rule: False} for i in range(22)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**levels, "d22": {"type": "object"}}}
    problem = problem_of_result_schema(schema)
    assert problem == "must have at most 20 references, or neither 'unevaluatedProperties' nor 'unevaluatedItems'"


def test_few_references_under_such_a_rule_are_allowed() -> None:
    levels = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 3} for i in range(6)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**levels, "d6": {"type": "object"}}, "unevaluatedProperties": False}
    assert problem_of_result_schema(schema) is None
