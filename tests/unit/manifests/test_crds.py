"""The descriptions in the custom resource definitions."""

from collections.abc import Iterator
from typing import Any

from labrats.manifests.crds import custom_resource_definitions
from labrats.manifests.descriptions import DESCRIPTIONS
from labrats.manifests.schema import structural_schema


def fields_of(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path and schema of each field at any depth."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields_of(field, f"{path}.{name}")
    if "items" in schema:
        yield from fields_of(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from fields_of(schema["additionalProperties"], f"{path}.*")


def test_every_field_of_a_crd_has_a_description() -> None:
    undescribed = []
    for definition in custom_resource_definitions():
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        fields = fields_of(schema, definition["spec"]["names"]["kind"])
        undescribed += [path for path, field in fields if not field.get("description")]
    assert undescribed == []


def test_descriptions_name_existing_fields_only() -> None:
    unknown = {
        record: set(fields) - set(structural_schema(record)["properties"]) for record, fields in DESCRIPTIONS.items()
    }
    assert not any(unknown.values()), unknown
