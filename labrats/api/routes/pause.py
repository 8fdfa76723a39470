"""The pause of the whole engine, in which no attempt starts."""

from datetime import datetime
from typing import Any

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.config import read_config
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import RequestBody, ResponseBody
from labrats.model.ai_config import AiConfig, EnginePause
from labrats.ports import compare_and_set

router = api_router("Configuration")


class PauseBody(RequestBody):
    """The wanted state of the engine."""

    model_config = RequestBody.model_config | {
        "json_schema_extra": {"examples": [{"paused": True, "reason": "the provider bills us twice"}]}
    }

    paused: bool = Field(description="True: no attempt starts until it is false again.")
    reason: str = Field(default="", max_length=500, description="The reason, for people.")


class PauseView(ResponseBody):
    """The state of the engine."""

    paused: bool = Field(examples=[True])
    reason: str = Field(examples=["the provider bills us twice"])
    by: str | None = Field(description="The caller who paused the engine; null without a pause.", examples=["key-1"])
    since: datetime | None = Field(description="Null without a pause.", examples=["2030-01-01T12:00:00Z"])


@router.get("/api/pause", responses=answers(200, PauseView, "The state"), summary="Show whether the engine is paused")
async def get_pause(request: Request) -> Response:
    """Return whether an administrator has paused the engine, who it was, and when."""
    return json_response(_view(await read_config(services_of(request))))


@router.put(
    "/api/pause",
    responses=answers(200, PauseView, "The new state", 400, 409, 413, 415, 422),
    summary="Pause or resume the engine",
)
async def put_pause(request: Request, body: PauseBody) -> Response:
    """Pause or resume the whole engine.

    In a pause no attempt starts. Running attempts go on, and submissions are accepted. It lasts until somebody ends it,
    also over restarts. To stop all work, pause first, then cancel all jobs with `POST /api/jobs/bulk`.
    """
    services, caller = services_of(request), caller_of(request)

    def apply(config: AiConfig) -> AiConfig:
        if not body.paused:
            return config.with_pause(None) if config.pause else config
        known = config.pause
        if known and known.reason == body.reason:
            return config
        return config.with_pause(EnginePause(by=caller.id, since=services.clock.now(), reason=body.reason))

    async with services.catalog.changing:
        _, written = await compare_and_set(services.store, lambda: read_config(services), apply)
        if written.metadata.resource_version:  # empty if there are no settings, and nothing to resume
            services.catalog.put(written)
    return json_response(_view(written))


def _view(config: AiConfig) -> dict[str, Any]:
    pause = config.pause
    return {
        "paused": pause is not None,
        "reason": pause.reason if pause else "",
        "by": pause.by if pause else None,
        "since": pause.since if pause else None,
    }
