"""The example that the mock provider gives for a schema."""

from typing import Any

import pytest

from labrats.executor.providers.schema_example import as_json, example_of


@pytest.mark.parametrize("item", [{"type": "string", "minLength": 10_000}, {"type": "integer"}])
def test_example_has_a_limit(item: dict[str, Any]) -> None:
    schema: dict[str, Any] = item
    for _ in range(6):
        schema = {"type": "array", "minItems": 100, "items": schema}
    assert len(as_json(example_of(schema))) < 1_000_000
