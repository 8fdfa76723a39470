"""The workflows in .github: actionlint accepts them, and each step of a release that needs no registry runs here."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cluster.programs import build_actionlint, build_helm
from tests.support.release_tree import VERSION, write_release_tree

ROOT: Final = Path(__file__).parents[2]
WORKFLOWS: Final = ROOT / ".github/workflows"
ON_A_REGISTRY: Final = re.compile(
    r"release\.py (base|build-images|publish-images)|docker login|helm push|cosign|gh release"
)
REGISTRY: Final = "ghcr.io/labrats-work/apps.ai-agents"
PINNED: Final = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}")

pytestmark = pytest.mark.timeout(600)


def steps(workflow: str) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load((WORKFLOWS / workflow).read_text())["jobs"].values():
        yield from job.get("steps", ())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source tree of VERSION, without the packages and programs of this one."""
    return write_release_tree(tmp_path_factory.mktemp("release") / "tree")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Python of its own, into which the wheel is installed, and helm."""
    folder = tmp_path_factory.mktemp("programs")
    subprocess.run((sys.executable, "-m", "venv", folder), check=True)
    (folder / "bin/helm").symlink_to(build_helm())
    return folder / "bin"


def test_actionlint_accepts_the_workflows() -> None:
    done = subprocess.run((build_actionlint(), *WORKFLOWS.iterdir()), capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_actions_are_pinned_by_commit() -> None:
    used = [step["uses"] for workflow in WORKFLOWS.iterdir() for step in steps(workflow.name) if "uses" in step]
    assert len(used) > 10
    assert [action for action in used if not PINNED.fullmatch(action)] == []


def test_steps_of_a_release_without_a_registry_run(tree: Path, programs: Path) -> None:
    done = []
    for step in steps("release.yml"):
        if "run" in step and not ON_A_REGISTRY.search(step["run"]) and "docker/gather" not in step["run"]:
            run_step(step["run"], tree, programs)
            done.append(step["name"])
    assert done == [
        "Compare the tag with the version",
        "Build the wheel",
        "Package the chart",
        "Write the notes",
        "Install the wheel",
        "Run the commands of a client",
    ]
    assert (tree / f"dist/wheel/labrats_engine-{VERSION}-py3-none-any.whl").exists()
    assert (tree / f"dist/chart/labrats-{VERSION}.tgz").exists()
    rendered = run_step("helm template dist/chart/*.tgz --set profile=small", tree, programs)
    images = set(re.findall(rf"{re.escape(REGISTRY)}/[\w./:-]+", rendered))
    assert images == {f"{REGISTRY}/engine:{VERSION}", f"{REGISTRY}/executor:{VERSION}"}
    assert "**" in (tree / "dist/notes.md").read_text()


def run_step(script: str, folder: Path, programs: Path) -> str:
    """Run a step as the runner of GitHub does, and return its output, with which the test fails if the step does."""
    environment = os.environ | {
        "GITHUB_REF_NAME": f"v{VERSION}",
        "REGISTRY": REGISTRY,
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    shell = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
    done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, script + done.stdout + done.stderr
    return done.stdout
