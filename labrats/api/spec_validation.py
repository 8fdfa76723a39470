"""What may be written of each kind of resource: what the API takes is what is right in a file."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from labrats.api.http.errors import problem_of
from labrats.api.routes.agents import AgentBody
from labrats.api.routes.ai_models import AiModelBody
from labrats.api.routes.config import DefaultsBody
from labrats.api.routes.instructions import InstructionBody
from labrats.api.routes.webhook_sources import WebhookSourceBody
from labrats.api.schemas.base import RequestBody
from labrats.api.schemas.submission import Submission, check_complete
from labrats.intake.validation import check_sizes
from labrats.model.errors import Invalid, Problem

BODIES: Final[Mapping[str, type[RequestBody]]] = {
    "AiAgent": AgentBody,
    "AiInstruction": InstructionBody,
    "AiModel": AiModelBody,
    "AiConfig": DefaultsBody,
    "WebhookSource": WebhookSourceBody,
    "InferenceRequest": Submission,
}


def problems_in(kind: str, name: str, spec: Mapping[str, Any]) -> Sequence[Problem]:
    """What is wrong with a resource of that kind and name, as far as it alone can tell."""
    body = BODIES[kind]
    named = {"name": name} if "name" in body.model_fields else {}
    try:
        asked = body.model_validate_json(json.dumps({**spec, **named}))
        if isinstance(asked, Submission):
            check_complete(asked)
            check_sizes(asked.prompt, asked.metadata)
    except ValidationError as error:
        return [_placed(problem_of({**each, "loc": ("body", *each["loc"])})) for each in error.errors()]
    except Invalid as error:
        return [_placed(problem) for problem in error.problems]
    return []


def _placed(problem: Problem) -> Problem:
    """The problem where it stands in a file: all but the name is in the `spec`."""
    if problem.field == "name":
        return Problem("metadata.name", problem.message)
    return Problem(f"spec.{problem.field}", problem.message)
