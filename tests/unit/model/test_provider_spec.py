"""Tests of the minimum versions of the agent programs."""

import json
from pathlib import Path

import pytest

from labrats.model.provider_spec import AGENT_PROGRAMS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("version", "is_old"),
    [
        ("2.1.197 (Claude Code) (/usr/bin/claude)", True),
        ("2.1.331 (Claude Code)", False),
        ("2.2.0", False),
        ("", False),
        ("a build without a number", False),
    ],
)
def test_version_below_the_minimum_is_a_problem(version: str, is_old: bool) -> None:
    problem = AGENT_PROGRAMS["claude"].problem_of(version)
    assert (problem is not None) == is_old
    if problem:
        assert problem.startswith("Claude Code 2.1.197 is older than 2.1.331")
        assert "npm install -g @anthropic-ai/claude-code@latest" in problem


@pytest.mark.parametrize("provider", AGENT_PROGRAMS)
def test_minimum_version_is_the_one_that_the_tests_run_and_the_docs_name(provider: str) -> None:
    program = AGENT_PROGRAMS[provider]
    pinned = json.loads((ROOT / "tests/agent-clis/package.json").read_text())["dependencies"]
    assert pinned[program.package] == program.minimum
    for page in ("README.md", "docs/providers.md"):
        assert f"{program.name} {program.minimum} or newer" in (ROOT / page).read_text()
