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
def engine(start_engine: EngineFactory, github: GitHubStandIn, tmp_path: Path) -> LocalEngine:
    """An engine whose Claude Code executes `agent.py` of the repository, with the credentials of an App."""
    program = tmp_path / "claude"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {repository_agent.__file__}\n")
    program.chmod(0o755)
    return start_reporting(start_engine, github, LABRATS_CLAUDE_PATH=str(program))
