"""The distribution `labrats-engine`: its wheel is installed by name in each usual way, for each supported Python."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.acceptance.engine import LocalEngine

ROOT: Final = Path(__file__).parents[2]
BIN: Final = Path(sys.executable).parent
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")

pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, **environment: str) -> str:
    """Run a command and return its output. The test fails with all of it if the command does."""
    variables: Mapping[str, str] = os.environ | environment
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone, with the dashboard."""
    folder = tmp_path_factory.mktemp("wheel")
    run(BIN / "python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, LABRATS_DASHBOARD="required")
    (wheel,) = folder.glob("labrats_engine-*.whl")
    return wheel


def test_wheel_has_the_dashboard_and_the_commit(wheel: Path) -> None:
    commit = run("git", "-C", ROOT, "rev-parse", "--short=12", "HEAD").strip()
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("labrats/commit.txt").decode().strip() == commit
        assert "labrats/dashboard/index.html" in archive.namelist()


def test_pip_installs_an_engine_that_serves_its_dashboard_without_node(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "own")
    run(tmp_path / "own/bin/pip", "install", "-q", wheel)
    labrats = tmp_path / "own/bin/labrats"
    assert "(commit " in run(labrats, "--version")

    class Installed(LocalEngine):
        def command(self, *options: str) -> list[str]:
            return [str(labrats), *self._arguments(*options)]

    with Installed(tmp_path, PATH="/usr/bin:/bin") as engine:
        page = httpx2.get(engine.url, headers={"Accept": "text/html"})
        assert 'id="root"' in page.text
        command = [str(labrats), "submit", "-p", "Say hello", "--provider", "mock", "--follow"]
        assert "completed" in subprocess.run(
            command, env={"LABRATS_DATA_DIR": str(engine.data_dir), "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip


def test_uvx_runs_the_wheel(wheel: Path, tmp_path: Path) -> None:
    places = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    assert "(commit " in run(BIN / "uvx", "--python", sys.executable, "--from", wheel, "labrats", "--version", **places)


def test_pipx_installs_the_command(wheel: Path, tmp_path: Path) -> None:
    places = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    run(BIN / "uvx", "--python", sys.executable, "pipx", "install", "--python", sys.executable, wheel, **places)
    assert "(commit " in run(tmp_path / "bin/labrats", "--version")


@pytest.mark.parametrize("python", PYTHONS)
def test_locked_dependencies_have_wheels_for_each_python(python: str, tmp_path: Path) -> None:
    target = ("--python-version", python, "--python-platform", "x86_64-manylinux_2_28", "--target", tmp_path)
    install = (BIN / "uv", "pip", "install", "--dry-run", "--only-binary", ":all:", "--require-hashes", *target)
    for lock in (ROOT / "requirements.txt", ROOT / "docker/engine/requirements.txt"):
        run(*install, "-r", lock)


@pytest.mark.parametrize("python", PYTHONS[1:])
def test_types_hold_for_each_python(python: str, tmp_path: Path) -> None:
    run(BIN / "mypy", "--python-version", python, "--cache-dir", tmp_path, "labrats")
