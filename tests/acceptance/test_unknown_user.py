"""An engine whose user is in no user database, as in a container that runs with any user id, and has no HOME."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.engine import LocalEngine

AGENT = """#!/bin/sh
echo '{"type": "system", "subtype": "init", "session_id": "one"}'
echo '{"type": "result", "subtype": "success", "result": "'$(id -u)'"}'
"""
UNKNOWN_USER = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
"""A command that runs another one as a user who exists only in a user namespace, with the files of this user."""


class EngineOfUnknownUser(LocalEngine):
    def __init__(self, folder: Path, **environment: str) -> None:
        super().__init__(folder, **environment)
        del self._environment["HOME"]

    def command(self, *options: str) -> list[str]:
        return [*UNKNOWN_USER, *super().command(*options)]


@pytest.fixture
def unknown_users_engine(tmp_path: Path) -> Iterator[EngineOfUnknownUser]:
    program = tmp_path / "agent" / "claude"
    program.parent.mkdir()
    program.write_text(AGENT)
    program.chmod(0o755)
    environment = {"LABRATS_CLAUDE_PATH": str(program), "ANTHROPIC_API_KEY": "sk-test-0123456789"}
    with EngineOfUnknownUser(tmp_path, LABRATS_SANDBOX="true", **environment) as engine:
        yield engine


@pytest.mark.parametrize("network", ["open", "none"])
async def test_agent_of_an_unknown_user_works_in_the_sandbox(
    unknown_users_engine: EngineOfUnknownUser, network: str
) -> None:
    async with unknown_users_engine.admin() as admin:
        job = await admin.run(config={"provider": "claude", "network": network})

    assert (job["status"], job["result"]) == ("completed", "54321"), job["failedReason"]
    assert "later mounts not kept out of the sandbox" not in unknown_users_engine.log


def test_default_data_folder_of_an_unknown_user_is_named_in_the_error() -> None:
    labrats = [str(Path(sys.executable).parent / "labrats"), "config"]
    command = [*UNKNOWN_USER, "env", "-i", *labrats]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "LABRATS_DATA_DIR=/.local/share/labrats\n" in done.stdout, done.stderr
