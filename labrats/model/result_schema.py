"""The JSON Schema of a job's result: its limits, and the checks of schemas and of values.

Schemas come from users and values from agents. The validator fetches nothing, and its regular expressions take linear
time. The check of a value can still take very long, so only a process with limited time makes it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from labrats.model.nesting import is_too_deep
from labrats.model.record import encode

if TYPE_CHECKING:
    import jsonschema_rs

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_BYTES: Final = 64 * 1024
SCHEMA_DEPTH: Final = 64
MOST_REFERENCES: Final = 20
"""Most references in a schema with a rule about what other rules have not seen. The validator compiles such a rule once
for each way that leads to it by references, of which 40 references can give a million.
"""

MOST_PATTERNS: Final = 100
"""Most regular expressions in a schema."""

DATA_BYTES: Final = 32 * 1024
"""Largest checked value, as JSON. It is stored in the job's status."""

DATA_DEPTH: Final = 64

_PATTERN_BYTES: Final = 1024 * 1024
"""Most memory of a compiled regular expression. It takes up to 18 ms to compile."""

_PATTERNS_BYTES: Final = 4 * _PATTERN_BYTES
"""Most memory of all compiled regular expressions of a schema that is submitted."""

_LEAST_PATTERN_BYTES: Final = 64 * 1024
"""Memory that each regular expression may have in any case, such as for `\\p{L}+`."""
_MOST_PROBLEMS: Final = 5
_LONGEST_PROBLEM: Final = 400
_REFERENCES: Final = ("$ref", "$dynamicRef")
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_TYPES: Final = "array, boolean, integer, null, number, object or string, or a list of these"


def problem_of_result_schema(schema: dict[str, Any]) -> str | None:
    """Return why `schema` is no usable JSON Schema; None if it is one."""
    text = encode(schema)
    if len(text) > SCHEMA_BYTES:
        return f"must be at most {SCHEMA_BYTES // 1024} KiB as JSON"
    if is_too_deep(text, SCHEMA_DEPTH):
        return f"must be nested at most {SCHEMA_DEPTH} levels deep"
    if schema.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
        return f"must be a JSON Schema of the dialect 2020-12: leave `$schema` out, or set it to {DIALECT}"
    if _count_patterns(schema) > MOST_PATTERNS:
        return f"must have at most {MOST_PATTERNS} regular expressions"
    if len(list(_fields_named(schema, _REFERENCES))) > MOST_REFERENCES and any(_fields_named(schema, _UNEVALUATED)):
        return f"must have at most {MOST_REFERENCES} references, or neither {' nor '.join(map(repr, _UNEVALUATED))}"
    return _problem_of_compilation(text)


def problems_of_value(schema: dict[str, Any], value: Any) -> Sequence[str]:
    """Return the first rules of a valid schema that `value` breaks, each as a text without parts of the value.

    May take very long: a small schema can require any number of steps.
    """
    return [
        _rule_of(error) for error in islice(_validator(schema, mask="the value").iter_errors(value), _MOST_PROBLEMS)
    ]


def _count_patterns(schema: dict[str, Any]) -> int:
    """Return the number of regular expressions, up to MOST_PATTERNS + 1."""
    return sum(1 for _ in islice(_patterns_in(schema), MOST_PATTERNS + 1))


def _validator(
    schema: dict[str, Any], mask: str | None = None, pattern_bytes: int = _PATTERN_BYTES
) -> "jsonschema_rs.Draft202012Validator":
    """Compile a schema. Raises ValidationError.

    mask: stands for the values in messages. pattern_bytes: most memory of each compiled regular expression.
    """
    import jsonschema_rs  # here, since few jobs have a schema and it takes 60 ms

    patterns = jsonschema_rs.RegexOptions(size_limit=pattern_bytes)
    return jsonschema_rs.Draft202012Validator(schema, offline=True, pattern_options=patterns, mask=mask)


@lru_cache(maxsize=32)
def _problem_of_compilation(text: bytes) -> str | None:
    """Return why a schema, as JSON, cannot be compiled. Cached, since each job of an agent has the same schema."""
    import jsonschema_rs

    try:
        schema = msgspec.json.decode(text)
        share = _PATTERNS_BYTES // max(_count_patterns(schema), 1)
        _validator(schema, pattern_bytes=min(max(share, _LEAST_PATTERN_BYTES), _PATTERN_BYTES))
    except jsonschema_rs.ValidationError as error:
        place, last = _place_of(error.instance_path), error.instance_path[-1:]
        if error.kind.name == "$ref":
            reason = error.message.partition(" and retrieving")[0]
            return f"has a `$ref` that must point into the schema, like `#/$defs/item`; nothing is fetched: {reason}"
        if error.kind.name == "format":
            limit = f"compiled, all of a schema may take {_PATTERNS_BYTES // 2**20} MiB"
            return (
                f"{place} must be a regular expression without look-around and back-references, not too large: {limit}"
            )
        if last == ["type"]:
            return f"{place} must be {_TYPES}"
        return f"must be a JSON Schema 2020-12{place and f'; at {place}'}: {error.message[:_LONGEST_PROBLEM]}"
    except ValueError as error:
        return f"must be a JSON Schema 2020-12: {str(error)[:_LONGEST_PROBLEM]}"
    return None


def _rule_of(error: "jsonschema_rs.ValidationError") -> str:
    place, rule = _place_of(error.instance_path), "/".join(map(str, error.schema_path))
    text = f"{place}: {error.message}" if place else error.message
    return f"{text[:_LONGEST_PROBLEM]} (#/{rule[:_LONGEST_PROBLEM]})"


def _place_of(path: Sequence[str | int]) -> str:
    """Return a path such as `items[0].price`; an empty text for the whole value."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _fields_named(value: Any, names: Collection[str]) -> Iterator[str]:
    """Yield the name of each field of a schema that has one of the names."""
    if isinstance(value, Mapping):
        yield from (name for name in names if name in value)
        for item in value.values():
            yield from _fields_named(item, names)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _fields_named(item, names)


def _patterns_in(value: Any) -> Iterator[str]:
    """Yield the regular expressions in a schema, and perhaps texts that only look like some."""
    if isinstance(value, Mapping):
        if isinstance(value.get("pattern"), str):
            yield value["pattern"]
        if isinstance(found := value.get("patternProperties"), Mapping):
            yield from found
        for item in value.values():
            yield from _patterns_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _patterns_in(item)
