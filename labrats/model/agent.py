"""An agent: the events that start it, and the settings that its jobs inherit."""

from enum import StrEnum
from typing import Any

from msgspec.structs import replace

from labrats.model.concurrency import Concurrency
from labrats.model.condition import Condition
from labrats.model.config import JobConfig
from labrats.model.isolation import Isolation
from labrats.model.mcp_server import McpServer
from labrats.model.network import AllowedHosts
from labrats.model.record import Record, Resource
from labrats.model.report import Report
from labrats.model.variables import SecretKey
from labrats.model.workspace_setup import Setup


class ChainCondition(StrEnum):
    """The condition on a job's end under which the next agent of the chain starts."""

    ON_SUCCESS = "on-success"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class FailurePolicy(StrEnum):
    """The effect of a failure on an `on-success` chain."""

    STOP = "stop"
    CONTINUE = "continue"
    RETRY = "retry"


class ChainLink(Record):
    """The agent to start when a job has ended, by its `triggerName`.

    allow_cycles: whether it may be an agent that the chain has visited before.
    """

    agent_trigger_name: str
    condition: ChainCondition = ChainCondition.ON_SUCCESS
    failure_policy: FailurePolicy = FailurePolicy.STOP
    allow_cycles: bool = False


class CiLoop(Record):
    """Repairs of failed checks, bounded for each pull request.

    attempts_per_pull_request: jobs that may try, one for each commit with failed checks.
    label: added to the pull request when these are used up, together with a comment; empty for none.
    """

    attempts_per_pull_request: int = 3
    label: str = "needs-human"


class Trigger(Record):
    """Events that start the agent, with the instruction and settings of the jobs.

    events:      names, or globs such as `issues.*`.
    filters:     dotted path in the payload to a value, a list of values, or a glob. All must match.
    instruction: the name of an AiInstruction, or the text itself.
    concurrency: of the jobs. Its key is a template with placeholders, as in instructions.
    ci_loop:     makes it a trigger for failed checks of pull requests that the engine has opened, and no others.
    """

    source: str
    events: tuple[str, ...] = ()
    instruction: str | None = None
    config: JobConfig = JobConfig()
    filters: dict[str, Any] = {}
    enabled: bool = True
    next: ChainLink | None = None
    report: Report | None = None
    concurrency: Concurrency | None = None
    ci_loop: CiLoop | None = None


class AiAgentSpec(Record):
    """The definition of an agent. Jobs (`agentRole`) and chains refer to it by `trigger_name`.

    instructions:    names of AiInstructions, in order.
    workspace_setup: what prepares the workspace of a job with a repository. A job's own values win, one by one.
    result_schema:   JSON Schema of the results of its jobs, unless they have their own.
    """

    trigger_name: str
    enabled: bool = True
    default_model: str | None = None
    default_effort: str | None = None
    default_provider: str | None = None
    default_network: str | AllowedHosts | None = None
    default_isolation: Isolation | None = None
    event_triggers: tuple[Trigger, ...] = ()
    instructions: tuple[str, ...] = ()
    mcp_servers: dict[str, McpServer] | None = None
    env: dict[str, str | SecretKey] | None = None
    workspace_setup: Setup | None = None
    report: Report | None = None
    result_schema: dict[str, Any] | None = None


class AiAgentStatus(Record):
    """The observed state of an agent. conditions: its problems, present and past."""

    conditions: tuple[Condition, ...] = ()


class AiAgent(Resource):
    """An agent: the triggers, defaults and instructions of its jobs."""

    spec: AiAgentSpec
    status: AiAgentStatus = AiAgentStatus()

    @property
    def claim(self) -> str:
        return f"the triggerName {self.spec.trigger_name!r}"


def without_instruction(agent: AiAgent, name: str) -> AiAgent:
    """Return the agent without the instruction, and with the triggers disabled that name it.

    The same object if the agent does not use the instruction.
    """
    spec = agent.spec
    if name not in spec.instructions and not any(
        each.enabled and each.instruction == name for each in spec.event_triggers
    ):
        return agent
    triggers = tuple(replace(each, enabled=each.enabled and each.instruction != name) for each in spec.event_triggers)
    kept = tuple(each for each in spec.instructions if each != name)
    return replace(agent, spec=replace(spec, instructions=kept, event_triggers=triggers))
