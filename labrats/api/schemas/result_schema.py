"""The JSON Schema of a result, in requests. Admission checks it."""

from typing import Annotated, Any, Final

from pydantic import Field

EXAMPLE: Final = {
    "type": "object",
    "properties": {"conclusion": {"enum": ["success", "failure"]}, "risk": {"type": "integer", "maximum": 10}},
    "required": ["conclusion"],
}

ResultSchemaBody = Annotated[
    dict[str, Any],
    Field(
        description="JSON Schema (2020-12) of the result. The agent is asked for a value that matches it, the engine "
        "checks the value, and the job has it as `resultData`. A job without it fails with `result_invalid`. At most "
        "64 KiB; a `$ref` leads to a part of the schema.",
        examples=[EXAMPLE],
    ),
]
