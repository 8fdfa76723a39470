"""The names of Secrets that AiModels, MCP servers and webhook sources may refer to. Values are never shown."""

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.model.core_resources import Secret, is_of_engine, problem_of_credentials

router = api_router("Configuration")


class SecretView(ResponseBody):
    """A Secret, without its values."""

    name: str = Field(examples=["anthropic"])
    keys: list[str] = Field(examples=[["ANTHROPIC_API_KEY"]])
    problem: str | None = Field(description="Why jobs may not use it, such as a missing label; null if they may.")


class SecretList(ResponseBody):
    """All Secrets that are neither the engine's own nor a part of a job."""

    secrets: list[SecretView]


@router.get("/api/secrets", responses=answers(200, SecretList, "The names and keys"), summary="List secrets")
async def list_secrets(request: Request) -> Response:
    """List the names and keys of Secrets. On one machine, `labrats secret set` creates them."""
    services = services_of(request)
    labelled_only = services.settings.labelled_credentials
    found = [each for each in await services.store.list(Secret) if not is_of_engine(each) and not each.metadata.owner]
    return json_response(
        {
            "secrets": [
                {
                    "name": each.name,
                    "keys": sorted(each.data),
                    "problem": problem_of_credentials(each, None, labelled_only=labelled_only),
                }
                for each in found
            ]
        }
    )
