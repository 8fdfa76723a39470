"""What tests have to know of an agent's program, so that what holds of all is written once."""

import platform
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from labrats.model.job import Usage
from tests.support.scripted_model import Calls, Dialect, ModelServer, Turn, scripted_model

KEY = "sk-test-0123456789"

NODE_MODULES = Path(__file__).parent.parent / "agent-clis" / "node_modules"
MACHINE = platform.machine()
NODE_ARCHITECTURE = {"x86_64": "x64", "aarch64": "arm64"}[MACHINE]


class AgentCli(ABC):
    """The real program, as `make setup` installs it, and the API by which it asks its model.

    base_path:    what of the API's path belongs to the endpoint.
    key_names:    the secrets in which it may find the key of its model; the first is the usual one.
    rate_limit:   what its model's server calls too many requests.
    conversation: the part of a request with all that was said; `instructions` and `effort`: with these.
    shell_tool:   the tool that runs a command, and `mcp_tool`: `ask` of the MCP server `docs`, as events name them.
    """

    provider: str
    program: Path
    model: str
    api: Dialect
    base_path = ""
    key_names: tuple[str, ...]
    rate_limit: str
    conversation: str
    instructions: str
    effort: str
    shell_tool: str
    mcp_tool: str

    @abstractmethod
    def shell(self, command: str, **more: Any) -> Calls:
        """The model has a command run."""

    @abstractmethod
    def ask(self, question: str) -> Calls:
        """The model asks the MCP server `docs`."""

    @abstractmethod
    def usage(self, *, turns: int, input_tokens: int, output_tokens: int) -> Usage:
        """What is told of so many answers with as many tokens in all. The cost is left out."""

    @abstractmethod
    def traps(self, command: str) -> dict[str, str]:
        """The files in which a repository asks for `command` to be run, or for the variable TRAP to be set."""

    def serve(self, *turns: Turn) -> AbstractContextManager[ModelServer]:
        """Serve `turns` until the end of the block."""
        return scripted_model(self.api, turns)

    def installed(self) -> str:
        """The program's path. A test that needs it fails without it: skipping would hide that nothing was tested."""
        if not self.program.exists():
            pytest.fail(f"{self.program.name} is not installed for the tests: `make setup` does it", pytrace=False)
        return str(self.program)

    @property
    def path_variable(self) -> str:
        """The one that tells the engine where the program is."""
        return f"LABRATS_{self.provider.upper()}_PATH"

    @property
    def secrets(self) -> dict[str, str]:
        """Those of its model."""
        return {self.key_names[0]: KEY}

    @property
    def environment(self) -> dict[str, str]:
        """That of an engine which is to find the program, and the key of its model."""
        return {self.path_variable: self.installed(), **self.secrets}

    def __str__(self) -> str:
        return self.provider


def words(part: Any) -> str:
    """All texts in a part of a request."""
    if isinstance(part, dict):
        part = list(part.values())
    return "\n".join(map(words, part)) if isinstance(part, list) else str(part)
