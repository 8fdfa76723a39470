"""The start of an engine in surroundings that would let its agents out."""

import os
import socket
from pathlib import Path

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.git_server import git, make_repository


async def test_engine_runs_no_program_of_a_repository_by_a_relative_search_path(
    start_engine: EngineFactory, tmp_path: Path
) -> None:
    """With such a PATH, git and bubblewrap of the repository would run outside of the sandbox."""
    repository, run = make_repository(tmp_path / "hello.git"), tmp_path / "run"
    for folder in ("bin", "."):
        for program in ("git", "bwrap", "cp"):
            file = repository / folder / program
            file.parent.mkdir(exist_ok=True)
            file.write_text(f'#!/bin/sh\necho {program} >> {run}\nexec /usr/bin/{program} "$@"\n')
            file.chmod(0o755)
    git(repository, "add", "--all")
    git(repository, "commit", "-q", "-m", "Add programs")
    commit = git(repository, "rev-parse", "--short", "HEAD")
    environment = {"PATH": f"./bin:bin::{os.environ['PATH']}", "LOCAL_REPO_ROOTS": str(tmp_path)}
    engine = start_engine(**environment)
    async with engine.admin() as admin:
        setup = {"gitRepo": str(repository), "gitRef": commit}
        detail = await admin.run({"write": {"path": "new", "text": "new"}}, workspaceSetup=setup)
    assert (detail["status"], detail["outputs"]["filesChanged"]) == ("completed", 1), detail["failedReason"]
    assert not run.exists()
    assert "relative entries of PATH ignored" in engine.log


def test_folder_of_workspaces_is_closed_to_other_users(start_engine: EngineFactory, tmp_path: Path) -> None:
    workspaces = tmp_path / "workspaces"
    workspaces.mkdir()
    workspaces.chmod(0o755)
    start_engine(WORKSPACE_DIR=str(workspaces))
    assert workspaces.stat().st_mode & 0o777 == 0o700


def test_nobody_else_listens_on_the_other_loopback_address(start_engine: EngineFactory) -> None:
    """Clients of `localhost` may try ::1 first, with their key."""
    port = int(start_engine().url.rpartition(":")[2])
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="Address already in use"):
            other.bind(("::1", port))
