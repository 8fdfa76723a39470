"""The schema of a custom resource: its structure from the engine's records, its limits and words from the API's bodies.

The API server takes structural schemas only: every type spelled out in place, no references, no unions with null.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect
from pydantic import BaseModel

from labrats.manifests.descriptions import WORDS

Schema = dict[str, Any]

_LIMITS: Final = ("enum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "minimum", "maximum")
_ANYTHING: Final = {"x-kubernetes-preserve-unknown-fields": True}


def structure_of(record: type[msgspec.Struct]) -> Schema:
    """The structural schema of the JSON that `record` is written as. Its description is the docstring's first line."""
    return _structure(inspect.type_info(record))


def borrow(schema: Schema, body: type[BaseModel]) -> Schema:
    """`schema` with the limits and descriptions of the same fields in `body`."""
    described = body.model_json_schema()
    return _borrow(schema, described, described.get("$defs", {}))


def refine(schema: Schema, changes: Mapping[str, Any]) -> Schema:
    """`schema` with `changes`, which has the same form, on top of it. Raises KeyError for a field that there is not."""
    refined = schema | {name: value for name, value in changes.items() if name not in ("properties", "items")}
    if "items" in changes:
        refined["items"] = refine(schema["items"], changes["items"])
    if fields := changes.get("properties"):
        changed = {name: refine(schema["properties"][name], each) for name, each in fields.items()}
        refined["properties"] = schema["properties"] | changed
    return refined


def _structure(info: inspect.Type) -> Schema:
    match info:
        case inspect.StructType(cls=cls, fields=fields):
            schema: Schema = {"type": "object", "description": (cls.__doc__ or "").strip().split("\n")[0]}
            words = WORDS.get(cls, {})
            schema["properties"] = {
                field.encode_name: _structure(field.type) | _described(words.get(field.encode_name)) for field in fields
            }
            if required := [field.encode_name for field in fields if field.required]:
                schema["required"] = required
            return schema
        case inspect.UnionType(types=types):
            return _structure_of_union([each for each in types if not isinstance(each, inspect.NoneType)])
        case inspect.VarTupleType(item_type=item):
            return {"type": "array", "items": _structure(item)}
        case inspect.DictType(value_type=inspect.AnyType()):
            return {"type": "object"} | _ANYTHING
        case inspect.DictType(value_type=value):
            return {"type": "object", "additionalProperties": _structure(value)}
        case inspect.EnumType(cls=enum):
            return {"type": "string", "enum": [member.value for member in enum]}
        case inspect.DateTimeType():
            return {"type": "string", "format": "date-time"}
        case inspect.StrType():
            return {"type": "string"}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            return {"type": "integer", "format": "int64"}
        case inspect.FloatType():
            return {"type": "number"}
        case inspect.AnyType():
            return dict(_ANYTHING)
    raise TypeError(f"no schema is known for {info}")


def _described(words: str | None) -> Schema:
    return {"description": words} if words else {}


def _structure_of_union(types: list[inspect.Type]) -> Schema:
    """A type that may be missing; or a number, whole or not, which are two types to Python only."""
    if {type(each) for each in types} == {inspect.IntType, inspect.FloatType}:
        return {"type": "number"}
    (only,) = types
    return _structure(only)


def _borrow(schema: Schema, described: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """One level of `borrow`; `described` may be a reference, or a union with null."""
    description = described.get("description")
    described = _resolved(described, definitions)
    borrowed = {name: described[name] for name in _LIMITS if name in described}
    if "const" in described:  # the only value so far
        borrowed["enum"] = [described["const"]]
    if "exclusiveMinimum" in described:  # a number of its own in JSON Schema, a flag for the API server
        borrowed |= {"minimum": described["exclusiveMinimum"], "exclusiveMinimum": True}
    if description or "description" in described:
        borrowed["description"] = description or described["description"]
    if "items" in schema and "items" in described:
        borrowed["items"] = _borrow(schema["items"], described["items"], definitions)
    every = _of_every_value(described)
    if "additionalProperties" in schema and every is not None:
        borrowed["additionalProperties"] = _borrow(schema["additionalProperties"], every, definitions)
    if "properties" in schema:
        fields = described.get("properties", {})
        borrowed["properties"] = {
            name: _borrow(each, fields[name], definitions) if name in fields else each
            for name, each in schema["properties"].items()
        }
    return schema | borrowed


def _of_every_value(described: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a mapping's values have in common, whatever their keys must look like."""
    if patterns := described.get("patternProperties"):
        (every,) = patterns.values()
    else:
        every = described.get("additionalProperties")
    return every if isinstance(every, Mapping) else None  # false means no others than the known ones


def _resolved(described: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    for alternatives in ("anyOf", "allOf"):
        if alternatives in described:
            return _resolved(next(each for each in described[alternatives] if each.get("type") != "null"), definitions)
    if "$ref" in described:
        return _resolved(definitions[described["$ref"].rpartition("/")[2]], definitions)
    return described
