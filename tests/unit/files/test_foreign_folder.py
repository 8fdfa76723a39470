"""A data folder of another user: commands say whose it is, and what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.engine import WITHOUT_CAPABILITIES

OWNER = 54321
"""A user id that the system does not know."""


@pytest.fixture(params=[0o700, 0o755])
def foreign(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a folder of another user, which this one may not write to."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    folder = tmp_path / "data"
    folder.mkdir(mode=request.param)
    (folder / "labrats.db").touch(mode=0o600)
    (folder / "admin.key").touch(mode=0o600)
    for path in (folder, *folder.iterdir()):
        os.chown(path, OWNER, OWNER)
    return folder


def run(folder: Path, *command: str) -> tuple[int, str]:
    """Return the exit code and the output of a command, as an ordinary user."""
    labrats = str(Path(sys.executable).parent / "labrats")
    environment = {**os.environ, "LABRATS_DATA_DIR": str(folder), "COLUMNS": "1000"}
    ended = subprocess.run(
        [*WITHOUT_CAPABILITIES, labrats, *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=environment, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("command", ["serve --port 0", "jobs", "login-link", "secret list", "api-key list"])
def test_command_names_the_owner_of_the_data_folder(foreign: Path, command: str) -> None:
    code, printed = run(foreign, *command.split())
    assert code in (2, 4)
    assert f"the data folder {foreign} belongs to the user id {OWNER}, and this command runs as the user " in printed
    assert "run it as that user, or name another folder with --data-dir" in printed
    assert ("pass an API key with --api-key" in printed) is (command in ("jobs", "api-key list"))
    assert len(printed.splitlines()) == 1


def test_doctor_names_the_owner_of_the_data_folder_and_examines_the_rest(foreign: Path) -> None:
    code, printed = run(foreign, "doctor")
    assert code == 1
    assert f"the data folder {foreign} belongs to the user id {OWNER}" in printed
    assert "isolation: sandbox" in printed


def test_folder_that_cannot_be_created_names_the_owner_of_its_parent(foreign: Path) -> None:
    code, printed = run(foreign / "new", "serve", "--port", "0")
    assert code == 2
    assert f"{foreign}, where the data folder would be, belongs to the user id {OWNER}" in printed


def test_other_reasons_keep_their_own_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, printed = run(tmp_path / "file", "serve", "--port", "0")
    assert code == 2
    assert f"{tmp_path / 'file'} is not a folder" in printed
