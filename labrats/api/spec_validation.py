"""Validates manifests of resources by the rules of the API's request bodies."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from labrats.api.http.errors import problems_of_body
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
    """Validate a resource on its own, without the resources that it names. Return its problems."""
    body = BODIES[kind]
    name_field = {"name": name} if "name" in body.model_fields else {}
    try:
        submission = body.model_validate_json(json.dumps({**spec, **name_field}))
        if isinstance(submission, Submission):
            check_complete(submission)
            check_sizes(submission.prompt, submission.metadata)
    except ValidationError as error:
        return [_in_manifest(problem) for problem in problems_of_body(error)]
    except Invalid as error:
        return [_in_manifest(problem) for problem in error.problems]
    return []


def _in_manifest(problem: Problem) -> Problem:
    """Return the problem with the field's path in a manifest: everything but the name is in `spec`."""
    if problem.field == "name":
        return Problem("metadata.name", problem.message)
    return Problem(f"spec.{problem.field}", problem.message)
