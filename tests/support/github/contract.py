"""GitHub's published description of its API, against which the stand-in checks each request.

`openapi.json` is an excerpt of the package `@octokit/openapi` (licence: `openapi.LICENSE`), which
`scripts/excerpt_github_openapi.py` makes: {"GET /repos/{owner}/{repo}": {"parameters": [...], "body": schema}}.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs
from graphql import GraphQLSchema, build_schema

from tests.support.github.calls import Json

EXCERPT: Final = Path(__file__).with_name("openapi.json")
_GRAPHQL: Final = Path(__file__).parents[2] / "github" / "node_modules" / "@octokit" / "graphql-schema"


@dataclass(frozen=True)
class Operation:
    """One method of one path. path: matches a path, with its parameters as groups."""

    name: str
    template: str
    path: re.Pattern[str]
    query: Mapping[str, jsonschema_rs.Validator]
    path_values: Mapping[str, jsonschema_rs.Validator]
    required: frozenset[str]
    body: jsonschema_rs.Validator | None
    needs_body: bool

    def violations(self, values: Mapping[str, str], query: Mapping[str, str], body: Any) -> Iterator[str]:
        """Yield a sentence for each way in which a request differs from the description."""
        for name, text in values.items():
            yield from _mismatches(f"path parameter {name}", self.path_values[name], text)
        for name, text in query.items():
            if name not in self.query:
                yield f"query parameter {name} is not documented"
            else:
                yield from _mismatches(f"query parameter {name}", self.query[name], text)
        yield from (f"query parameter {name} is missing" for name in sorted(self.required - query.keys()))
        if body is None:
            if self.needs_body:
                yield "the body is missing"
        elif self.body is None:
            if body != {}:
                yield "no body is documented"
        else:
            for error in self.body.iter_errors(body):
                yield f"body{''.join(f'[{part!r}]' for part in error.instance_path)}: {error.message}"


def find_operation(method: str, path: str) -> tuple[Operation, Mapping[str, str]] | None:
    """Return the operation of a request with the values in its path, which is still encoded."""
    for operation in _operations():
        if operation.name.startswith(f"{method} ") and (found := operation.path.fullmatch(path)):
            return operation, {name: unquote(text) for name, text in found.groupdict().items()}
    return None


@cache
def _operations() -> tuple[Operation, ...]:
    """Return all operations. A path without a parameter, and a longer one, come before the ones that match them too."""
    documented = json.loads(EXCERPT.read_text())
    names = sorted(documented, key=lambda name: (name.count("{"), -len(name)))
    return tuple(_operation(name, documented[name]) for name in names)


def _operation(name: str, documented: Json) -> Operation:
    template = name.partition(" ")[2]
    inside = [each for each in documented["parameters"] if each["in"] == "path"]
    asked = [each for each in documented["parameters"] if each["in"] == "query"]
    body = documented["body"]
    return Operation(
        name=name,
        template=template,
        path=_pattern(template, {each["name"] for each in inside if each.get("x-multi-segment")}),
        query={each["name"]: _validator(each["schema"]) for each in asked},
        path_values={each["name"]: _validator(each["schema"]) for each in inside},
        required=frozenset(each["name"] for each in asked if each.get("required")),
        body=None if body is None else _validator(body),
        needs_body=documented["needsBody"],
    )


def _pattern(template: str, long: set[str]) -> re.Pattern[str]:
    """Return a pattern of a template's paths. long: parameters whose values may contain slashes."""
    parts = re.split(r"\{(\w+)\}", template)
    text = [
        re.escape(part) if n % 2 == 0 else f"(?P<{part}>{'.+' if part in long else '[^/]+'})"
        for n, part in enumerate(parts)
    ]
    return re.compile("".join(text))


def _validator(schema: Json) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft4Validator(_closed(schema), validate_formats=True)


def _closed(schema: Any) -> Any:
    """Return a schema that refuses fields which it does not name, unless it says otherwise."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        closed.setdefault("additionalProperties", False)
    if closed.pop("nullable", False):
        return {"anyOf": [closed, {"type": "null"}]}
    return closed


def _mismatches(place: str, validator: jsonschema_rs.Validator, text: str) -> Iterator[str]:
    """Yield the errors of a parameter, whose text may stand for a number or a boolean."""
    readings: list[Any] = [text]
    if re.fullmatch(r"-?\d+", text):
        readings.append(int(text))
    if text in ("true", "false"):
        readings.append(text == "true")
    if not any(validator.is_valid(reading) for reading in readings):
        yield f"{place}: {next(iter(validator.iter_errors(readings[-1]))).message}"


@cache
def graphql_schema() -> GraphQLSchema:
    """Return GitHub's GraphQL schema, from the package that `make setup` installs."""
    return build_schema((_GRAPHQL / "schema.graphql").read_text(), assume_valid=True)
