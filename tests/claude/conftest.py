"""The real Claude Code program, as `make setup` installs it for the tests."""

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.executor.attempts import a_unique_name

NODE_MODULES = Path(__file__).parent.parent / "agent-clis" / "node_modules"
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


@pytest.fixture(scope="session")
def claude_cli() -> str:
    """The path of the program. A test that needs it fails without it: skipping would hide that nothing was tested."""
    package = f"claude-code-linux-{ARCHITECTURES[platform.machine()]}"
    program = NODE_MODULES / "@anthropic-ai" / package / "claude"
    if not program.exists():
        pytest.fail("Claude Code is not installed for the tests: `make setup` does it", pytrace=False)
    return str(program)


@pytest.fixture
def unique_name() -> Iterator[str]:
    """The name of an attempt whose processes are looked for."""
    with a_unique_name() as name:
        yield name
