"""A run of tests without a cluster says so at its end, and fails if it must have one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CONFTEST: Final = """
from tests.cluster import packages
from tests.conftest import *
from tests.conftest import pytest_sessionfinish, pytest_terminal_summary, pytest_testnodedown

packages.reason_unsupported = lambda: "this machine is too small"

def pytest_configure(config):
    config.addinivalue_line("markers", "kubernetes: needs a cluster")
"""
TESTS: Final = """
import pytest

@pytest.mark.kubernetes
def test_on_a_cluster(cluster): ...

def test_elsewhere(): ...
"""


@pytest.mark.parametrize(
    ("required", "options", "status"),
    [("", (), 0), ("required", (), 1), ("required", ("-n", "1"), 1)],
    ids=["optional", "required", "required of workers"],
)
def test_run_without_a_cluster_fails_only_if_it_is_required(
    tmp_path: Path, required: str, options: tuple[str, ...], status: int
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_one.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    variables = {"PYTHONPATH": str(ROOT), "LABRATS_TEST_CLUSTER": required, "CI": ""}
    environment = {name: text for name, text in os.environ.items() if name != "LABRATS_TEST_KUBECONFIG"} | variables
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(tmp_path))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "1 passed, 1 skipped" in done.stdout
    assert "The Kubernetes tests did not run: this machine is too small" in done.stdout
    assert ("NO TEST RAN ON A CLUSTER" in done.stdout) == bool(status)
