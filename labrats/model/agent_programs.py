"""The programs of the providers that run one."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_VERSION: Final = re.compile(r"\d{1,6}\.\d{1,6}\.\d{1,6}")


class AgentProgram(NamedTuple):
    """A program. name: for people. package: on npm. minimum: the oldest version that the tests run."""

    name: str
    package: str
    minimum: str

    @property
    def install_command(self) -> str:
        return f"npm install -g {self.package}@latest"

    def problem_of(self, version: str) -> str | None:
        """Return what is wrong with the version that the program reports; None if it is unknown or new enough."""
        found = _VERSION.search(version)
        if not found or _numbers(found[0]) >= _numbers(self.minimum):
            return None
        return (
            f"{self.name} {found[0]} is older than {self.minimum}, with which Labrats is tested, "
            f"and can lose sessions or usage: `{self.install_command}`"
        )


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


AGENT_PROGRAMS: Final[Mapping[str, AgentProgram]] = {
    "claude": AgentProgram("Claude Code", "@anthropic-ai/claude-code", "2.1.331"),
    "codex": AgentProgram("Codex", "@openai/codex", "0.169.0"),
}
"""By provider."""
