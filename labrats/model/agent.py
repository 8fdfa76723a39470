"""An agent: which events start it, and what it lends to its jobs."""

from enum import StrEnum
from typing import Any

from labrats.model.condition import Condition
from labrats.model.config import JobConfig
from labrats.model.mcp_server import McpServer
from labrats.model.record import Record, Resource


class ChainCondition(StrEnum):
    """When the next agent of a chain is started."""

    ON_SUCCESS = "on-success"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class FailurePolicy(StrEnum):
    """What a failure does to an `on-success` chain."""

    STOP = "stop"
    CONTINUE = "continue"
    RETRY = "retry"


class ChainLink(Record):
    """The agent to start when a job has ended, by its `triggerName`.

    allow_cycles: it may be one that the chain has visited before.
    """

    agent_trigger_name: str
    condition: ChainCondition = ChainCondition.ON_SUCCESS
    failure_policy: FailurePolicy = FailurePolicy.STOP
    allow_cycles: bool = False


class Trigger(Record):
    """Which events start the agent, and what they ask of it.

    events:      names, or globs such as `issues.*`.
    filters:     dotted payload path to a value, a list of values, or a glob. All must hold.
    instruction: the name of an AiInstruction, or the text itself.
    """

    source: str
    events: tuple[str, ...] = ()
    instruction: str | None = None
    config: JobConfig = JobConfig()
    filters: dict[str, Any] = {}
    enabled: bool = True
    next: ChainLink | None = None


class AiAgentSpec(Record):
    """trigger_name: what jobs (`agentRole`) and chains call it. instructions: names of AiInstructions, in order."""

    trigger_name: str
    enabled: bool = True
    default_model: str | None = None
    default_effort: str | None = None
    default_provider: str | None = None
    event_triggers: tuple[Trigger, ...] = ()
    instructions: tuple[str, ...] = ()
    mcp_servers: dict[str, McpServer] | None = None


class AiAgentStatus(Record):
    """conditions: what is wrong with it, where that is so or was."""

    conditions: tuple[Condition, ...] = ()


class AiAgent(Resource):
    """An agent role."""

    spec: AiAgentSpec
    status: AiAgentStatus = AiAgentStatus()

    @property
    def claim(self) -> str:
        return f"the triggerName {self.spec.trigger_name!r}"
