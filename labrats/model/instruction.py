"""An instruction: a text that agents follow."""

from enum import StrEnum

from labrats.model.record import Record, Resource


class Scope(StrEnum):
    """The agents that get an instruction. `global`: all agents. `local`: agents that name it."""

    GLOBAL = "global"
    LOCAL = "local"


class AiInstructionSpec(Record):
    """The text of an instruction, and the agents that get it.

    content:  may have placeholders such as `{{ payload.issue.title }}`.
    priority: the order of global instructions; lower comes first.
    """

    content: str
    scope: Scope = Scope.LOCAL
    display_name: str = ""
    description: str = ""
    priority: int = 0


class AiInstruction(Resource):
    """A text that agents follow."""

    spec: AiInstructionSpec
