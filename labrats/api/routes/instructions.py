"""Instructions (AiInstruction): texts that become parts of agents' prompts."""

from functools import partial
from typing import Annotated, Any, Final

from fastapi import Query, Request
from msgspec.structs import replace
from pydantic import Field, StringConstraints
from starlette.responses import Response

from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.resources import NO_VERSION, ResourceVersion, create_resource, get_resource, update_resource
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Name, PatchBody, RequestBody, ResponseBody, optional
from labrats.index.catalog import Catalog
from labrats.model.agent import AiAgent, without_instruction
from labrats.model.errors import Conflict
from labrats.model.instruction import AiInstruction, AiInstructionSpec, Scope
from labrats.model.record import Metadata

router = api_router("Instructions")

CONTENT_LENGTH: Final = 100_000

InstructionName = Annotated[str, Field(description="The AiInstruction's name.", examples=["implement-issue"])]
Content = Annotated[
    str,
    StringConstraints(min_length=1, max_length=CONTENT_LENGTH),
    Field(
        description="The text. `{{ source }}`, `{{ event }}`, `{{ payload.a.b }}`, `{{ metadata.a }}`, "
        "`{{ parent.result }}`, `{{ parent.data.a }}` and `{{ parent.pullRequestUrl }}` are replaced by values, marked "
        "as data. Other text in braces is not changed.",
        examples=["Implement the issue {{ payload.issue.title }}."],
    ),
]
DisplayName = Annotated[
    str,
    StringConstraints(max_length=200),
    Field(description="The name that people see.", examples=["Implement an issue"]),
]
Description = Annotated[str, StringConstraints(max_length=2000), Field(description="The purpose, for people.")]
Priority = Annotated[int, Field(ge=-1000, le=1000, description="Global instructions with a lower priority come first.")]
ScopeField = Annotated[
    Scope, Field(strict=False, description="`global`: for every agent. `local`: for the agents that name it.")
]


class InstructionBody(RequestBody):
    """An instruction to add."""

    name: Name = Field(examples=["implement-issue"])
    scope: ScopeField = Scope.LOCAL
    display_name: DisplayName = ""
    description: Description = ""
    priority: Priority = 0
    content: Content


class InstructionPatch(PatchBody):
    """Fields to change. Absent fields keep their value."""

    read_only = frozenset({"id", "name"})

    scope: ScopeField = optional()
    display_name: DisplayName = optional()
    description: Description = optional()
    priority: Priority = optional()
    content: Content = optional()
    resource_version: ResourceVersion = NO_VERSION


class InstructionView(ResponseBody):
    """An instruction."""

    id: str = Field(examples=["implement-issue"])
    name: str = Field(examples=["implement-issue"])
    scope: Scope = Field(examples=["local"])
    display_name: str = Field(examples=["Implement an issue"])
    description: str = Field(examples=[""])
    priority: int
    content: str = Field(examples=["Implement the issue."])
    resource_version: str = Field(examples=["17"])


class InstructionList(ResponseBody):
    """Instructions."""

    instructions: list[InstructionView]


@router.get(
    "/api/instructions",
    responses=answers(200, InstructionList, "The instructions, by name", 422),
    summary="List instructions",
)
async def list_instructions(
    request: Request, scope: Annotated[Scope | None, Query(description="Lists only instructions of this scope.")] = None
) -> Response:
    """List all instructions, or those of one scope."""
    found = [each for each in services_of(request).catalog.instructions if scope in (None, each.spec.scope)]
    return json_response({"instructions": [instruction_view(each) for each in found]})


@router.post(
    "/api/instructions",
    status_code=201,
    responses=answers(201, InstructionView, "The new instruction", 400, 409, 413, 415, 422),
    summary="Add an instruction",
)
async def create_instruction(
    request: Request, body: InstructionBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """Add an instruction."""
    services = services_of(request)
    intent = Intent.of(idempotency_key, caller_of(request).id, body)
    async with services.catalog.changing:
        if intent and (earlier := intent.first_match(services.catalog.instructions)):
            return services.idempotency_cache.again(request, intent, instruction_view(earlier))
        metadata = Metadata(name=body.name, annotations=intent.annotations if intent else {})
        spec = AiInstructionSpec(**body.model_dump(exclude={"name"}))
        created = await create_resource(services, AiInstruction(metadata=metadata, spec=spec), intent)
        services.catalog.put(created)
    return services.idempotency_cache.created(request, intent, instruction_view(created))


@router.get(
    "/api/instructions/{name}",
    responses=answers(200, InstructionView, "The instruction", 404),
    summary="Get an instruction",
)
async def get_instruction(request: Request, name: InstructionName) -> Response:
    """Get one instruction."""
    return json_response(instruction_view(await get_resource(services_of(request), AiInstruction, name)))


@router.patch(
    "/api/instructions/{name}",
    responses=answers(200, InstructionView, "The changed instruction", 400, 404, 409, 413, 415, 422),
    summary="Change an instruction",
)
async def change_instruction(request: Request, name: InstructionName, body: InstructionPatch) -> Response:
    """Change some fields. New jobs get the new text; existing jobs keep theirs."""
    services = services_of(request)
    changes = body.model_dump(exclude_unset=True, exclude={"resource_version"})

    def apply(instruction: AiInstruction) -> AiInstruction:
        return replace(instruction, spec=replace(instruction.spec, **changes))

    async with services.catalog.changing:
        body.check_read_only(instruction_view(await get_resource(services, AiInstruction, name)))
        changed = await update_resource(services, AiInstruction, name, body.resource_version, apply)
        services.catalog.put(changed)
    return json_response(instruction_view(changed))


@router.delete(
    "/api/instructions/{name}",
    status_code=204,
    responses=answers(204, None, "The instruction is removed", 404, 409, 422),
    summary="Remove an instruction",
)
async def delete_instruction(
    request: Request,
    name: InstructionName,
    force: Annotated[
        bool,
        Query(
            description="Removes the instruction even if agents use it: also from their `instructions`. Triggers that "
            "name it are disabled."
        ),
    ] = False,
) -> Response:
    """Remove an instruction that no agent and no trigger uses.

    With `force`, it is removed from the agents that use it. Triggers that name it are disabled: otherwise they would
    use its name as the text.
    """
    services = services_of(request)
    async with services.catalog.changing:
        instruction = await get_resource(services, AiInstruction, name)
        if not force and (users := _users_of(name, services.catalog)):
            raise Conflict(
                f"the instruction {name!r} is used by {', '.join(users)}; remove it there, or add ?force=true"
            )
        for agent in services.catalog.agents:
            if without_instruction(agent, name) is not agent:
                changed = await update_resource(
                    services, AiAgent, agent.name, None, partial(without_instruction, name=name)
                )
                services.catalog.put(changed)
        await services.store.delete(AiInstruction, name)
        services.catalog.remove(instruction)
    return Response(status_code=204)


def _users_of(name: str, catalog: Catalog) -> list[str]:
    """Return the agents and triggers that name the instruction, as phrases for an error message."""
    agents = [f"the agent {agent.name}" for agent in catalog.agents if name in agent.spec.instructions]
    triggers = [
        f"the trigger {', '.join(trigger.events)} of {agent.name} (eventTriggers[{number}])"
        for agent in catalog.agents
        for number, trigger in enumerate(agent.spec.event_triggers)
        if trigger.instruction == name
    ]
    return [*agents, *triggers]


def instruction_view(instruction: AiInstruction) -> dict[str, Any]:
    """Return the JSON that InstructionView describes."""
    spec = instruction.spec
    return {
        "id": instruction.name,
        "name": instruction.name,
        "scope": spec.scope,
        "displayName": spec.display_name,
        "description": spec.description,
        "priority": spec.priority,
        "content": spec.content,
        "resourceVersion": instruction.metadata.resource_version,
    }
