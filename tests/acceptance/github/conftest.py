"""A stand-in for GitHub, and an engine that reports to it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine
from tests.acceptance.github.reporting import start_reporting
from tests.support import repository_agent
from tests.support.github import GitHubStandIn, a_github


@pytest.fixture
def github() -> Iterator[GitHubStandIn]:
    with a_github() as github:
        yield github


@pytest.fixture
def claude_program(tmp_path: Path) -> Path:
    """A Claude Code that executes `agent.py` of the repository."""
    program = tmp_path / "claude"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {repository_agent.__file__}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def engine(start_engine: EngineFactory, github: GitHubStandIn, claude_program: Path) -> LocalEngine:
    """An engine with this program, and the credentials of an App."""
    return start_reporting(start_engine, github, LABRATS_CLAUDE_PATH=str(claude_program))
