"""An instruction: a text that agents work by."""

from enum import StrEnum

from labrats.model.record import Record, Resource


class Scope(StrEnum):
    """`global`: for every agent. `local`: for the agents that name it."""

    GLOBAL = "global"
    LOCAL = "local"


class AiInstructionSpec(Record):
    """content: the text, with placeholders such as `{{ payload.issue.title }}`. priority: lower comes first."""

    content: str
    scope: Scope = Scope.LOCAL
    display_name: str = ""
    description: str = ""
    priority: int = 0


class AiInstruction(Resource):
    """A text that agents work by."""

    spec: AiInstructionSpec
