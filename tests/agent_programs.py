"""The real agent programs, as `make setup` installs them for the tests."""

import platform
from pathlib import Path

import pytest

_NODE_MODULES = Path(__file__).parent / "agent-clis" / "node_modules"
_MACHINE = platform.machine()
_NODE_ARCHITECTURE = {"x86_64": "x64", "aarch64": "arm64"}[_MACHINE]

CLAUDE = _NODE_MODULES / "@anthropic-ai" / f"claude-code-linux-{_NODE_ARCHITECTURE}" / "claude"
CODEX = (
    _NODE_MODULES / "@openai" / f"codex-linux-{_NODE_ARCHITECTURE}" / f"vendor/{_MACHINE}-unknown-linux-musl/bin/codex"
)


def installed(program: Path) -> str:
    """Its path. A test that needs it fails without it: skipping would hide that nothing was tested."""
    if not program.exists():
        pytest.fail(f"{program.name} is not installed for the tests: `make setup` does it", pytrace=False)
    return str(program)
