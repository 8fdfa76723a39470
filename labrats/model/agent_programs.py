"""The programs of the providers that run one."""

from collections.abc import Mapping
from typing import Final, NamedTuple


class AgentProgram(NamedTuple):
    """A program. name: for people. package: on npm."""

    name: str
    package: str


AGENT_PROGRAMS: Final[Mapping[str, AgentProgram]] = {
    "claude": AgentProgram("Claude Code", "@anthropic-ai/claude-code"),
    "codex": AgentProgram("Codex", "@openai/codex"),
}
"""By provider."""
