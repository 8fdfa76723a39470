"""Schemas of custom resources: the structure comes from the engine's records, limits and descriptions from API bodies.

The API server accepts only structural schemas: all types in place, no references, no unions with null.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect
from pydantic import BaseModel

from labrats.manifests.descriptions import DESCRIPTIONS

Schema = dict[str, Any]

_LIMITS: Final = ("enum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "minimum", "maximum")
_ANYTHING: Final = {"x-kubernetes-preserve-unknown-fields": True}


def structural_schema(record: type[msgspec.Struct]) -> Schema:
    """Return the structural schema of `record` as JSON. Its description is the first line of the docstring."""
    return _structure(inspect.type_info(record))


def add_constraints(schema: Schema, body: type[BaseModel]) -> Schema:
    """Return `schema` with the limits and descriptions that `body` has for the same fields."""
    described = body.model_json_schema()
    return _add_constraints(schema, described, described.get("$defs", {}))


def merge_schema(schema: Schema, changes: Mapping[str, Any]) -> Schema:
    """Return `schema` with `changes` merged into it. Raises KeyError if `changes` has an unknown field."""
    merged = schema | {name: value for name, value in changes.items() if name not in ("properties", "items")}
    if "items" in changes:
        merged["items"] = merge_schema(schema["items"], changes["items"])
    if fields := changes.get("properties"):
        changed = {name: merge_schema(schema["properties"][name], each) for name, each in fields.items()}
        merged["properties"] = schema["properties"] | changed
    return merged


def _structure(info: inspect.Type) -> Schema:
    match info:
        case inspect.StructType(cls=cls, fields=fields):
            schema: Schema = {"type": "object", "description": (cls.__doc__ or "").strip().split("\n")[0]}
            descriptions = DESCRIPTIONS.get(cls, {})
            schema["properties"] = {
                field.encode_name: _structure(field.type) | _described(descriptions.get(field.encode_name))
                for field in fields
            }
            if required := [field.encode_name for field in fields if field.required]:
                schema["required"] = required
            return schema
        case inspect.Metadata(type=described, extra_json_schema=extra):
            return _structure(described) | _described((extra or {}).get("description"))
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
            # The format alone admits "t" and "z", which the API server's rules then cannot compare: no update succeeds.
            return {"type": "string", "format": "date-time", "pattern": "T.*(Z|[+-][0-9:]+)$"}
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
    raise TypeError(f"no schema for {info}")


def _described(description: str | None) -> Schema:
    return {"description": description} if description else {}


def _structure_of_union(types: list[inspect.Type]) -> Schema:
    """Return the schema of an optional type, of a number that may be an int or a float, or of a text or an object."""
    kinds = {type(each) for each in types}
    if kinds == {inspect.IntType, inspect.FloatType}:
        return {"type": "number"}
    if kinds == {inspect.StrType, inspect.StructType}:  # a structural schema cannot express it
        return dict(_ANYTHING)
    (only,) = types
    return _structure(only)


def _add_constraints(schema: Schema, described: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """Add constraints to one level of the schema. `described` may be a reference, or a union with null."""
    description = described.get("description")
    described = _resolved(described, definitions)
    constrained = {name: described[name] for name in _LIMITS if name in described}
    if "const" in described:  # a single allowed value
        constrained["enum"] = [described["const"]]
    if "exclusiveMinimum" in described:  # a number in JSON Schema, a flag for the API server
        constrained |= {"minimum": described["exclusiveMinimum"], "exclusiveMinimum": True}
    if description or "description" in described:
        constrained["description"] = description or described["description"]
    if "items" in schema and "items" in described:
        constrained["items"] = _add_constraints(schema["items"], described["items"], definitions)
    every = _value_schema(described)
    if "additionalProperties" in schema and every is not None:
        constrained["additionalProperties"] = _add_constraints(schema["additionalProperties"], every, definitions)
    if "properties" in schema:
        fields = described.get("properties", {})
        constrained["properties"] = {
            name: _add_constraints(each, fields[name], definitions) if name in fields else each
            for name, each in schema["properties"].items()
        }
    return schema | constrained


def _value_schema(described: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of a mapping's values, for any key."""
    if patterns := described.get("patternProperties"):
        (every,) = patterns.values()
    else:
        every = described.get("additionalProperties")
    return every if isinstance(every, Mapping) else None  # false allows no additional properties


def _resolved(described: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    for alternatives in ("anyOf", "allOf"):
        if alternatives in described:
            return _resolved(next(each for each in described[alternatives] if each.get("type") != "null"), definitions)
    if "$ref" in described:
        return _resolved(definitions[described["$ref"].rpartition("/")[2]], definitions)
    return described
