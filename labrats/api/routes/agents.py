"""Agents (AiAgent): the events that start them, and the defaults of their jobs."""

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final

from fastapi import Query, Request
from msgspec.structs import replace
from pydantic import AfterValidator, Field, StringConstraints, field_validator
from starlette.responses import Response

from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.instructions import CONTENT_LENGTH, InstructionList, instruction_view
from labrats.api.routes.resources import (
    NO_VERSION,
    ResourceVersion,
    create_resource,
    get_resource,
    update_resource,
    value_taken,
)
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import (
    IsolationLevel,
    IsolationName,
    Label,
    Name,
    PatchBody,
    Provider,
    RequestBody,
    ResponseBody,
    optional,
)
from labrats.api.schemas.concurrency import ConcurrencyBody, ConcurrencyView, concurrency_from, concurrency_view
from labrats.api.schemas.mcp_servers import AgentsMcpServersBody, McpServerView, mcp_servers
from labrats.api.schemas.network import NetworkBody, NetworkView, network_rule
from labrats.api.schemas.report import ReportBody, ReportView, report_of
from labrats.api.schemas.result_schema import EXAMPLE, ResultSchemaBody
from labrats.api.schemas.submission import ConfigBody, job_config
from labrats.api.schemas.variables import VariablesBody, VariablesView, variables
from labrats.api.schemas.workspace_setup import SetupBody, SetupView, setup_of, setup_view
from labrats.api.services import Services
from labrats.index.catalog import Catalog
from labrats.intake.events import listens_to, problem_of_filters
from labrats.intake.validation import check_result_schema
from labrats.model.agent import AiAgent, AiAgentSpec, ChainCondition, ChainLink, CiLoop, FailurePolicy, Trigger
from labrats.model.effort import Effort
from labrats.model.errors import Conflict, Invalid, NotFound, Problem
from labrats.model.instruction import AiInstruction
from labrats.model.record import Metadata
from labrats.model.workspace_setup import problem_of_setup
from labrats.seeds import default_agents

router = api_router("Agents")

TRIGGERS_PATH: Final = "triggers"
MAX_TRIGGERS: Final = 100
MAX_INSTRUCTIONS: Final = 100

AgentName = Annotated[str, Field(description="The AiAgent's name.", examples=["ai-developer"])]


def _check_agent_name(name: str) -> str:
    if name == TRIGGERS_PATH:  # its URL would be that of another operation
        raise ValueError(f"must not be `{TRIGGERS_PATH}`, which is reserved")
    return name


class NextBody(RequestBody):
    """The agent to start when the job has ended."""

    agent_trigger_name: Label = Field(description="The agent's `triggerName`.", examples=["ai-reviewer"])
    condition: Annotated[ChainCondition, Field(strict=False)] = Field(
        default=ChainCondition.ON_SUCCESS, description="The outcome of the job that starts the agent."
    )
    failure_policy: Annotated[FailurePolicy, Field(strict=False)] = Field(
        default=FailurePolicy.STOP, description="The effect of a failure on an `on-success` chain."
    )
    allow_cycles: bool = Field(default=False, description="Allows an agent that already ran in this chain.")


class CiLoopBody(RequestBody):
    """Makes the trigger one for failed checks of pull requests that the engine has opened, and for no others."""

    attempts_per_pull_request: int = Field(
        default=3, ge=1, le=20, description="Jobs that may try, one for each commit with failed checks."
    )
    label: Annotated[str, StringConstraints(max_length=50)] = Field(
        default="needs-human", description="Added with a comment once the attempts are used up; empty for none."
    )


class TriggerBody(RequestBody):
    """The events that start the agent, and its task."""

    source: Label = Field(description="The source of the events.", examples=["github"])
    events: list[Label] = Field(
        min_length=1, max_length=100, description="Names, or globs such as `issues.*`.", examples=[["issues.labeled"]]
    )
    instruction: Annotated[str, StringConstraints(min_length=1, max_length=CONTENT_LENGTH)] | None = Field(
        default=None, description="The name of an AiInstruction, or the text itself.", examples=["implement-issue"]
    )
    config: ConfigBody = ConfigBody()
    filters: dict[str, Any] = Field(
        default={},
        max_length=100,
        description="Dotted payload path to a value, a list of values (any of them), or a glob. All must hold. "
        "In a list, a number selects an item; any other key applies to each item.",
        examples=[{"label.name": ["ai", "ai-*"]}],
    )
    enabled: bool = Field(default=True, description="False disables the trigger.")
    next: NextBody | None = None
    report: ReportBody | None = None
    concurrency: ConcurrencyBody | None = None
    ci_loop: CiLoopBody | None = None

    @field_validator("filters")
    @classmethod
    def _are_valid(cls, filters: dict[str, Any]) -> dict[str, Any]:
        if problem := problem_of_filters(filters):
            raise ValueError(problem)
        return filters


TriggerList = Annotated[
    list[TriggerBody], Field(max_length=MAX_TRIGGERS, description="The events that start the agent.")
]
InstructionNames = Annotated[
    list[Name], Field(max_length=MAX_INSTRUCTIONS, description="Names of AiInstructions, in order.")
]


class AgentBody(RequestBody):
    """An agent to add."""

    name: Annotated[Name, AfterValidator(_check_agent_name)] = Field(examples=["ai-developer"])
    trigger_name: Label = optional(
        description="The name by which jobs and chains refer to the agent. Default: its name.",
        examples=["ai-developer"],
    )
    enabled: bool = Field(default=True, description="A disabled agent starts no jobs.")
    default_model: Label | None = Field(
        default=None, description="The model of its jobs, unless they set another.", examples=["opus"]
    )
    default_effort: Effort | None = Field(
        default=None, description="The effort of its jobs, unless they set another.", examples=["high"]
    )
    default_provider: Provider | None = Field(
        default=None, description="The provider of its jobs, unless they set another.", examples=["claude"]
    )
    default_network: NetworkBody | None = None
    default_isolation: IsolationLevel | None = None
    event_triggers: TriggerList = []
    instructions: InstructionNames = []
    mcp_servers: AgentsMcpServersBody | None = None
    env: VariablesBody | None = None
    workspace_setup: SetupBody | None = None
    report: ReportBody | None = None
    result_schema: ResultSchemaBody | None = None


class AgentPatch(PatchBody):
    """Fields to change. Absent fields keep their value; null clears a nullable field; lists are replaced."""

    read_only = frozenset({"id", "name"})

    trigger_name: Label = optional()
    enabled: bool = optional()
    default_model: Label | None = None
    default_effort: Effort | None = None
    default_provider: Provider | None = None
    default_network: NetworkBody | None = None
    default_isolation: IsolationLevel | None = None
    event_triggers: TriggerList = optional()
    instructions: InstructionNames = optional()
    mcp_servers: AgentsMcpServersBody | None = None
    env: VariablesBody | None = None
    workspace_setup: SetupBody | None = None
    report: ReportBody | None = None
    result_schema: ResultSchemaBody | None = None
    resource_version: ResourceVersion = NO_VERSION


class NextView(ResponseBody):
    """The agent to start when the job has ended."""

    agent_trigger_name: str = Field(examples=["ai-reviewer"])
    condition: ChainCondition
    failure_policy: FailurePolicy
    allow_cycles: bool


class CiLoopView(ResponseBody):
    """The repair of failed checks."""

    attempts_per_pull_request: int = Field(examples=[3])
    label: str = Field(examples=["needs-human"])


class TriggerView(ResponseBody):
    """The events that start the agent, and its task."""

    source: str = Field(examples=["github"])
    events: list[str] = Field(examples=[["issues.labeled"]])
    instruction: str | None = Field(examples=["implement-issue"])
    config: dict[str, Any] = Field(description="Settings as in a submission. Unset fields are absent.")
    filters: dict[str, Any] = Field(examples=[{"label.name": "ai-implement"}])
    enabled: bool = Field(examples=[True])
    next: NextView | None
    report: ReportView = optional(description="The report to GitHub; absent if not set.")
    concurrency: ConcurrencyView | None
    ci_loop: CiLoopView = optional(description="The repair of failed checks; absent if not set.")


class AgentView(ResponseBody):
    """An agent."""

    id: str = Field(examples=["ai-developer"])
    name: str = Field(examples=["ai-developer"])
    trigger_name: str = Field(examples=["ai-developer"])
    enabled: bool = Field(examples=[True])
    default_model: str | None = Field(examples=["opus"])
    default_effort: str | None = Field(examples=["high"])
    default_provider: str | None = Field(examples=["claude"])
    default_network: NetworkView = optional(description="The network rule of its jobs; absent if not set.")
    default_isolation: IsolationName = optional(description="The least isolation of its jobs; absent if not set.")
    event_triggers: list[TriggerView]
    instructions: list[str] = Field(examples=[["conduct"]])
    mcp_servers: dict[str, McpServerView] = optional(description="MCP servers for its jobs; absent if not set.")
    env: VariablesView = optional(description="Environment variables for its jobs; absent if not set.")
    workspace_setup: SetupView = optional(description="Preparation of the workspaces of its jobs; absent if not set.")
    report: ReportView = optional(description="The report of its jobs to GitHub; absent if not set.")
    result_schema: dict[str, Any] = optional(
        description="The JSON Schema of the results of its jobs; absent if not set.", examples=[EXAMPLE]
    )
    resource_version: str = Field(examples=["17"])


class AgentList(ResponseBody):
    """Agents."""

    agents: list[AgentView]


class AgentsTriggerView(TriggerView):
    """A trigger and its agent."""

    agent: str = Field(description="The agent's name.", examples=["ai-developer"])
    trigger_name: str = Field(description="The agent's `triggerName`.", examples=["ai-developer"])


class MatchingTriggers(ResponseBody):
    """Matching triggers, and their agents."""

    triggers: list[AgentsTriggerView]
    agents: list[AgentView]


class Seeded(ResponseBody):
    """The number of default agents that were added."""

    seeded: int = Field(examples=[5])


@router.get("/api/agents", responses=answers(200, AgentList, "All agents, by name"), summary="List agents")
async def list_agents(request: Request) -> Response:
    """List all agents."""
    return json_response({"agents": [_view(each) for each in services_of(request).catalog.agents]})


@router.post(
    "/api/agents",
    status_code=201,
    responses=answers(201, AgentView, "The new agent", 400, 409, 413, 415, 422),
    summary="Add an agent",
)
async def create_agent(request: Request, body: AgentBody, idempotency_key: IdempotencyKey = None) -> Response:
    """Add an agent. Its `triggerName` must be unique."""
    services = services_of(request)
    intent = Intent.of(idempotency_key, caller_of(request).id, body)
    fields = _fields(body)
    fields.pop("name")
    spec = AiAgentSpec(**{"trigger_name": body.name} | fields)
    metadata = Metadata(name=body.name, annotations=intent.annotations if intent else {})
    async with services.catalog.changing:
        if intent and (earlier := intent.first_match(services.catalog.agents)):
            return services.idempotency_cache.again(request, intent, _view(earlier))
        _check_against(services.catalog, body.name, spec)
        created = await create_resource(services, AiAgent(metadata=metadata, spec=spec), intent)
        services.catalog.put(created)
    return services.idempotency_cache.created(request, intent, _view(created))


@router.get(
    f"/api/agents/{TRIGGERS_PATH}",
    responses=answers(200, MatchingTriggers, "The enabled triggers of enabled agents that match", 422),
    summary="Find agents by event",
)
async def find_triggers(
    request: Request,
    source: Annotated[str | None, Query(description="Default: any source.", examples=["github"])] = None,
    event: Annotated[str | None, Query(description="Default: any event.", examples=["issues.labeled"])] = None,
) -> Response:
    """Find the triggers that listen to the event. Their filters on the payload are ignored."""
    found = [
        (agent, trigger)
        for agent in services_of(request).catalog.agents
        for trigger in agent.spec.event_triggers
        if agent.spec.enabled and listens_to(trigger, source or None, event or None)
    ]
    triggers = [
        _trigger_view(trigger) | {"agent": agent.name, "triggerName": agent.spec.trigger_name}
        for agent, trigger in found
    ]
    agents = {agent.name: _view(agent) for agent, _ in found}
    return json_response({"triggers": triggers, "agents": list(agents.values())})


@router.get(
    "/api/agents/by-trigger/{trigger_name:path}",  # a name may contain a slash
    responses=answers(200, AgentView, "The agent", 404),
    summary="Get an agent by its trigger name",
)
async def get_agent_by_trigger_name(
    request: Request, trigger_name: Annotated[str, Field(examples=["ai-developer"])]
) -> Response:
    """Get the agent with this `triggerName`."""
    if agent := services_of(request).catalog.agents_by_trigger_name.get(trigger_name):
        return json_response(_view(agent))
    raise NotFound(f"there is no agent with the triggerName {trigger_name!r}")


@router.post(
    "/api/agents/seed",
    responses=answers(200, Seeded, "The number of added agents"),
    summary="Add the default agents",
)
async def seed_agents(request: Request) -> Response:
    """Add the missing default agents and their missing instructions. Existing ones are not changed."""
    return json_response({"seeded": await add_agents(services_of(request), default_agents())})


async def add_agents(services: Services, agents: Sequence[tuple[AiAgent, Sequence[AiInstruction]]]) -> int:
    """Add the missing ones of the agents with their missing instructions, and return the number of added agents."""
    added = 0
    async with services.catalog.changing:
        for agent, instructions in agents:
            exists = (
                services.catalog.agent(agent.name) or agent.spec.trigger_name in services.catalog.agents_by_trigger_name
            )
            if exists:
                continue
            for instruction in instructions:
                if services.catalog.instruction(instruction.name) is None:
                    await _add(services, instruction)
            added += await _add(services, agent)
    return added


@router.get("/api/agents/{name}", responses=answers(200, AgentView, "The agent", 404), summary="Get an agent")
async def get_agent(request: Request, name: AgentName) -> Response:
    """Get one agent."""
    return json_response(_view(await get_resource(services_of(request), AiAgent, name)))


@router.patch(
    "/api/agents/{name}",
    responses=answers(200, AgentView, "The changed agent", 400, 404, 409, 413, 415, 422),
    summary="Change an agent",
)
async def change_agent(request: Request, name: AgentName, body: AgentPatch) -> Response:
    """Change some fields. Existing jobs keep their settings."""
    services = services_of(request)
    changes = _fields(body)
    changes.pop("resource_version", None)

    def apply(agent: AiAgent) -> AiAgent:
        changed = replace(agent, spec=replace(agent.spec, **changes))
        _check_against(services.catalog, name, changed.spec, agent.spec.instructions)
        return changed

    async with services.catalog.changing:
        body.check_read_only(_view(await get_resource(services, AiAgent, name)))
        changed = await update_resource(services, AiAgent, name, body.resource_version, apply)
        services.catalog.put(changed)
    return json_response(_view(changed))


@router.delete(
    "/api/agents/{name}",
    status_code=204,
    responses=answers(204, None, "The agent is removed", 404),
    summary="Remove an agent",
)
async def delete_agent(request: Request, name: AgentName) -> Response:
    """Remove an agent. Its jobs continue, and its instructions stay."""
    services = services_of(request)
    async with services.catalog.changing:
        agent = await get_resource(services, AiAgent, name)
        await services.store.delete(AiAgent, name)
        services.catalog.remove(agent)
    return Response(status_code=204)


@router.get(
    "/api/agents/{name}/instructions",
    responses=answers(200, InstructionList, "The agent's instructions, in order", 404),
    summary="List an agent's instructions",
)
async def get_agents_instructions(request: Request, name: AgentName) -> Response:
    """List global instructions by priority, then the agent's own in its order. Placeholders are not replaced."""
    services = services_of(request)
    agent = await get_resource(services, AiAgent, name)
    return json_response({"instructions": [instruction_view(each) for each in services.catalog.instructions_of(agent)]})


async def _add(services: Services, resource: AiAgent | AiInstruction) -> bool:
    """Store the resource. Return False if another replica has just stored it."""
    try:
        services.catalog.put(await services.store.create(resource))
    except Conflict:
        return False
    return True


def _fields(body: AgentBody | AgentPatch) -> dict[str, Any]:
    """Convert the sent fields to those of AiAgentSpec."""
    fields: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if "event_triggers" in fields:
        fields["event_triggers"] = tuple(_trigger(each) for each in body.event_triggers)
    if "instructions" in fields:
        fields["instructions"] = tuple(body.instructions)
    if body.mcp_servers is not None:
        fields["mcp_servers"] = mcp_servers(body.mcp_servers)
    if body.env is not None:
        fields["env"] = variables(body.env)
    if body.default_network is not None:
        fields["default_network"] = network_rule(body.default_network)
    if body.report is not None:
        fields["report"] = report_of(body.report)
    if body.result_schema is not None:
        check_result_schema(body.result_schema, "resultSchema")
    if body.workspace_setup is not None:
        fields["workspace_setup"] = setup = setup_of(body.workspace_setup)
        if problem := problem_of_setup(setup):
            raise Invalid(problem)
    return fields


def _trigger(body: TriggerBody) -> Trigger:
    return Trigger(
        source=body.source,
        events=tuple(body.events),
        instruction=body.instruction,
        config=job_config(body.config),
        filters=body.filters,
        enabled=body.enabled,
        next=ChainLink(**body.next.model_dump()) if body.next else None,
        report=report_of(body.report),
        concurrency=concurrency_from(body.concurrency),
        ci_loop=CiLoop(**body.ci_loop.model_dump()) if body.ci_loop else None,
    )


def _check_against(catalog: Catalog, name: str, spec: AiAgentSpec, stored: Collection[str] = ()) -> None:
    """Raise Conflict if another agent has the trigger name, Invalid if an instruction is missing.

    stored: instructions that the agent had before. One applied with kubectl may be missing among them.
    """
    other = catalog.agents_by_trigger_name.get(spec.trigger_name)
    if other and other.name != name:
        message = f"the agent {other.name!r} already has the triggerName {spec.trigger_name!r}"
        raise value_taken("triggerName", message)
    missing: Sequence[Problem] = [
        Problem(f"instructions[{number}]", f"there is no instruction {each!r}")
        for number, each in enumerate(spec.instructions)
        if catalog.instruction(each) is None and each not in stored
    ]
    if missing:
        raise Invalid(*missing)


def _view(agent: AiAgent) -> dict[str, Any]:
    spec = agent.spec
    optional_fields = {
        "mcpServers": spec.mcp_servers,
        "env": spec.env,
        "defaultNetwork": spec.default_network,
        "defaultIsolation": spec.default_isolation,
        "workspaceSetup": spec.workspace_setup and setup_view(spec.workspace_setup),
        "report": spec.report,
        "resultSchema": spec.result_schema,
    }
    return {name: value for name, value in optional_fields.items() if value is not None} | {
        "id": agent.name,
        "name": agent.name,
        "triggerName": spec.trigger_name,
        "enabled": spec.enabled,
        "defaultModel": spec.default_model,
        "defaultEffort": spec.default_effort,
        "defaultProvider": spec.default_provider,
        "eventTriggers": [_trigger_view(each) for each in spec.event_triggers],
        "instructions": spec.instructions,
        "resourceVersion": agent.metadata.resource_version,
    }


def _trigger_view(trigger: Trigger) -> dict[str, Any]:
    optional_fields = {"report": trigger.report, "ciLoop": trigger.ci_loop and _ci_loop_view(trigger.ci_loop)}
    return {name: value for name, value in optional_fields.items() if value is not None} | {
        "source": trigger.source,
        "events": trigger.events,
        "instruction": trigger.instruction,
        "config": trigger.config,
        "filters": trigger.filters,
        "enabled": trigger.enabled,
        "next": trigger.next and _next_view(trigger.next),
        "concurrency": concurrency_view(trigger.concurrency),
    }


def _ci_loop_view(loop: CiLoop) -> dict[str, Any]:
    return {"attemptsPerPullRequest": loop.attempts_per_pull_request, "label": loop.label}


def _next_view(link: ChainLink) -> dict[str, Any]:
    return {
        "agentTriggerName": link.agent_trigger_name,
        "condition": link.condition,
        "failurePolicy": link.failure_policy,
        "allowCycles": link.allow_cycles,
    }
