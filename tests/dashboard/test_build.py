"""The dashboard's build: its types follow the API, and packages contain it."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

import httpx2
import pytest

from scripts.print_openapi import document
from tests.acceptance.engine import LocalEngine

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "dashboard"
BIN: Final = Path(sys.executable).parent


@pytest.mark.core
def test_generated_types_are_those_of_the_current_openapi_document(tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(document()))
    command = [
        BIN / "node",
        SOURCES / "scripts/generate-types.mjs",
        tmp_path / "openapi.json",
        tmp_path / "schema.d.ts",
    ]
    subprocess.run(command, check=True)
    message = "the API has changed; run `make dashboard-types`"
    assert (tmp_path / "schema.d.ts").read_text() == (SOURCES / "src/api/schema.d.ts").read_text(), message


@pytest.mark.core
def test_sizes_of_the_build_are_within_the_budgets() -> None:
    done = subprocess.run([BIN / "node", SOURCES / "scripts/budgets.mjs"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.core
def test_build_has_the_licence_notice_of_each_package_that_it_contains() -> None:
    notices = (ROOT / "labrats/dashboard/licenses.txt").read_text()
    for name in json.loads((SOURCES / "package.json").read_text())["dependencies"]:
        assert f"{name} " in notices, name
    for package in ("react", "react-dom", "uplot", "@tanstack/react-query"):
        licence = next((SOURCES / "node_modules" / package).glob("LICENSE*")).read_text().strip()
        assert licence in notices


@pytest.mark.slow
def test_wheel_from_the_sdist_serves_the_dashboard_without_node(tmp_path: Path) -> None:
    environment = os.environ | {"LABRATS_DASHBOARD": "required"}
    subprocess.run([BIN / "uv", "build", "-q", "--sdist", "-o", tmp_path, ROOT], check=True, env=environment)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / sdist.name.removesuffix(".tar.gz")
    assert not (source / "dashboard").exists()
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), str(source)]
    subprocess.run(build, check=True, env=environment)  # without sources, so without Node
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert "labrats/dashboard/index.html" in names
    assert any(name.endswith(".js.br") for name in names)
    assert "labrats/dashboard/licenses.txt" in names
    assert not any("node_modules" in name or name.endswith(".building") for name in names)

    installed_index = tmp_path / "installed/labrats/dashboard/index.html"
    for encoded in installed_index.parent.glob("index.html.*"):
        encoded.unlink()
    installed_index.write_text(installed_index.read_text() + "<!-- of the wheel -->")
    (tmp_path / "engine").mkdir()
    with _InstalledWheel(tmp_path / "engine", PYTHONPATH=str(tmp_path / "installed")) as engine:
        page = httpx2.get(f"{engine.url}/jobs", headers={"Accept": "text/html"})
        assert 'id="root"' in page.text
        assert "of the wheel" in page.text
        script = page.text.partition('src="')[2].partition('"')[0]
        assert httpx2.get(engine.url + script).headers["cache-control"].endswith("immutable")


class _InstalledWheel(LocalEngine):
    """An engine that runs the code of PYTHONPATH."""

    def command(self, *options: str) -> list[str]:
        start = "from labrats.main import main; main()"
        return [sys.executable, "-P", "-c", start, "serve", "--data-dir", str(self.data_dir), *options]


@pytest.mark.slow
def test_two_builds_are_identical(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    vite = str(SOURCES / "node_modules/.bin/vite")
    for name in ("first", "second"):
        command = [vite, "build", "--logLevel", "error", "--outDir", str(tmp_path / name)]
        subprocess.run(command, check=True, cwd=SOURCES, env=environment)
    assert _contents(tmp_path / "first") == _contents(tmp_path / "second")


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
