"""The engine on the newest Python of this machine, such as the images have. All other tests run on the tests' own."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.engine import LocalEngine

ROOT: Final = Path(__file__).parents[2]
NEWEST_MINOR: Final = 20
"""The last Python 3 that is looked for."""

IMPORT_ALL: Final = """
import importlib, pkgutil, labrats
for module in pkgutil.walk_packages(labrats.__path__, "labrats."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
"""

KUBERNETES_CLIENT: Final = "tests/unit/backends/kubernetes/test_client.py"
CLUSTER_PROXY: Final = "tests/unit/executor/egress/test_cluster_proxy.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def newest_python() -> Path:
    """The newest Python that can create environments. Skips the test without one; with CI=true the test fails."""
    own = sys.version_info.minor
    for minor in range(NEWEST_MINOR, own, -1):
        for python in _pythons(f"python3.{minor}"):
            if subprocess.run([python, "-c", "import ensurepip"], check=False, capture_output=True).returncode == 0:
                return python
    give_up = pytest.fail if os.environ.get("CI") else pytest.skip
    raise give_up.Exception(f"there is no Python newer than 3.{own}: install one, or put it on PATH")


def _pythons(name: str) -> Iterator[Path]:
    """Yield the interpreters of that name on PATH, and those that are installed beside the tests' own."""
    if found := shutil.which(name):
        yield Path(found)
    yield from sorted(Path(sys.base_prefix).parent.glob(f"*/bin/{name}"), reverse=True)


@pytest.fixture(scope="module")
def programs(newest_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment with the engine and its tests."""
    folder = tmp_path_factory.mktemp("newest-python")
    subprocess.run([newest_python, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    for requirements in ("requirements.txt", "requirements-dev.txt"):
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(ROOT / requirements)], check=True)
    editable = [*pip, "--no-deps", "-e", str(ROOT)]
    subprocess.run(editable, check=True, env=os.environ | {"LABRATS_DASHBOARD": "skip"})
    return folder / "bin"


def test_all_modules_are_imported(programs: Path) -> None:
    done = subprocess.run(
        [programs / "python", "-W", "error", "-c", IMPORT_ALL], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_clients_of_servers_work(programs: Path) -> None:
    # What differs most between Python's versions: TLS, names of hosts, and the errors of both.
    tests = ("tests/unit/cli/test_app.py", "tests/unit/net", KUBERNETES_CLIENT, CLUSTER_PROXY)
    command = [str(programs / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-10_000:]


def test_a_job_runs_and_the_engine_stops(programs: Path, tmp_path: Path) -> None:
    class Newest(LocalEngine):
        def command(self, *options: str) -> list[str]:
            return [str(programs / "labrats"), *self._arguments(*options)]

    with Newest(tmp_path) as engine:
        asyncio.run(_run_job(engine))
    assert "Traceback" not in engine.log


async def _run_job(engine: LocalEngine) -> None:
    async with engine.admin() as admin:
        job = await admin.run({"log": "hello"})
        assert job["status"] == "completed", job
        assert "hello" in (await admin.get(f"/api/jobs/{job['id']}/logs")).text
        assert (await admin.get("/api/openapi.json")).status_code == 200
