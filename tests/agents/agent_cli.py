"""A common interface to the real agent programs, so that a test can run with each of them."""

import copy
import platform
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import pytest

from labrats.model.job import Usage
from tests.support.scripted_model import Calls, Dialect, ModelServer, Turn, scripted_model

KEY = "sk-test-0123456789"

NODE_MODULES = Path(__file__).parent.parent / "agent-clis" / "node_modules"
NEWEST_NODE_MODULES = NODE_MODULES.parent / "newest" / "node_modules"
MACHINE = platform.machine()
NODE_ARCHITECTURE = {"x86_64": "x64", "aarch64": "arm64"}[MACHINE]


class AgentCli(ABC):
    """A real program, as `make setup` installs it, and the API of its model.

    version:      `newest` for the newest version; empty for the one that the engine needs at least.
    base_path:    the part of the API's path that belongs to the endpoint.
    key_names:    names of the secrets that may contain the model's key; the first is the usual one.
    rate_limit:   the API's error type for too many requests.
    conversation: the field of a request with the conversation.
    instructions: the field of a request with the instructions.
    effort:       the field of a request with the effort.
    shell_tool:   the name, in events, of the tool that runs a command.
    mcp_tool:     the name, in events, of the tool `ask` of the MCP server `docs`.
    """

    provider: str
    version = ""
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
        """Return a turn in which the model runs a command."""

    @abstractmethod
    def ask(self, question: str, server: str = "docs") -> Calls:
        """Return a turn in which the model asks an MCP server."""

    @abstractmethod
    def usage(self, *, turns: int, input_tokens: int, output_tokens: int) -> Usage:
        """Return the usage, without the cost, of a number of answers with these tokens in total."""

    @abstractmethod
    def traps(self, command: str) -> dict[str, str]:
        """Return files of a repository that configure the program to run `command` or to set the variable TRAP."""

    def newest(self) -> Self:
        """Return the same program in its newest version, which `make test-extended` installs."""
        other = copy.copy(self)
        other.program, other.version = NEWEST_NODE_MODULES / self.program.relative_to(NODE_MODULES), "newest"
        return other

    def serve(self, *turns: Turn) -> AbstractContextManager[ModelServer]:
        """Serve `turns` until the context exits."""
        return scripted_model(self.api, turns)

    def installed(self) -> str:
        """Return the program's path. The test fails if it is missing: a skip would hide that nothing was tested."""
        if not self.program.exists():
            target = "agent-clis-newest" if self.version else "setup"
            pytest.fail(f"{self} is not installed for the tests: `make {target}` does it", pytrace=False)
        return str(self.program)

    @property
    def path_variable(self) -> str:
        """The variable with which the engine finds the program."""
        return f"LABRATS_{self.provider.upper()}_PATH"

    @property
    def task_fields(self) -> dict[str, Any]:
        """The fields of a task by which its executor finds the program."""
        return {"programs": {self.provider: self.installed()}}

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets of the model."""
        return {self.key_names[0]: KEY}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of an engine that finds the program and the key of its model."""
        return {self.path_variable: self.installed(), **self.secrets}

    def __str__(self) -> str:
        return f"{self.provider}-{self.version}" if self.version else self.provider


def words(part: Any) -> str:
    """Return all texts in a part of a request."""
    if isinstance(part, dict):
        part = list(part.values())
    return "\n".join(map(words, part)) if isinstance(part, list) else str(part)
