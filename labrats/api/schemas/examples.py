"""Builds the examples of the OpenAPI document from the examples in its schemas."""

from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

_BY_TYPE: Final = {"string": "text", "integer": 1, "number": 1, "boolean": True, "null": None}


def add_examples(document: dict[str, Any]) -> None:
    """Add an example to each request and response body of the document that has none."""
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            for body in [operation.get("requestBody", {}), *operation["responses"].values()]:
                for content in body.get("content", {}).values():
                    content.setdefault("example", example_of(content["schema"], schemas))


def example_of(schema: Schema, schemas: Mapping[str, Schema]) -> Any:
    """Return a value that is valid for `schema`, from its examples. Optional fields without an example are left out."""
    if examples := schema.get("examples"):
        return _in_schema_order(examples[0], schema)
    if reference := schema.get("$ref"):
        return example_of(schemas[reference.rpartition("/")[2]], schemas)
    if "const" in schema or "enum" in schema:
        return schema.get("const", *schema.get("enum", [])[:1])
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        is_null = {"type": "null"} in choices and not has_example(schema, schemas)
        return None if is_null else example_of(choices[0], schemas)
    if schema.get("type") == "array":
        return [example_of(each, schemas) for each in schema.get("prefixItems") or [schema["items"]]]
    if schema.get("type") == "object":
        return _object(schema, schemas)
    return "2030-01-31T12:00:00Z" if schema.get("format") == "date-time" else _BY_TYPE[schema.get("type", "string")]


def _in_schema_order(example: Any, schema: Schema) -> Any:
    """Return the example with its fields in the order of the schema. Pydantic sorts them by name."""
    if not isinstance(example, dict) or "properties" not in schema:
        return example
    return {name: example[name] for name in schema["properties"] if name in example}


def _object(schema: Schema, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    required = schema.get("required", ())
    return {
        name: example_of(each, schemas)
        for name, each in schema.get("properties", {}).items()
        if name in required or has_example(each, schemas)
    }


def has_example(schema: Schema, schemas: Mapping[str, Schema]) -> bool:
    """Return whether `schema`, or any part of it, has an example."""
    if reference := schema.get("$ref"):
        return has_example(schemas[reference.rpartition("/")[2]], schemas)
    parts = [*schema.get("anyOf", ()), *schema.get("properties", {}).values()]
    parts += [schema["items"]] if "items" in schema else []
    return bool(schema.get("examples")) or any(has_example(part, schemas) for part in parts)
