"""Tests of the image for one machine: podman runs it as users do, to its first job, and its data outlive the container.

podman runs as root here, with runc, because these machines may have no user namespaces for ordinary users and the
control groups of version 1. Containers have no network: commands run inside.
"""

import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import packages
from tests.cluster.product import MACHINE
from tests.cluster.shell import run

_PODMAN: Final = {"podman": "podman", "runc": "runc"}
_INSTALL_A_PROGRAM: Final = """
mkdir /tmp/agent && cd /tmp/agent
echo '{"name": "agent", "version": "1.0.0", "bin": {"own-agent": "agent.js"}}' > package.json
printf '#!/usr/bin/env node\\nconsole.log("it runs")\\n' > agent.js
npm install --global --offline "$(npm pack)"
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(packages.reason_unsupported() is not None, reason="building images needs root on Linux"),
]


@dataclass(frozen=True)
class Podman:
    """podman with images and volumes in a folder of its own."""

    folder: Path

    def __call__(self, *arguments: str | Path) -> str:
        storage = ("--storage-driver", "vfs", "--root", self.folder / "root", "--runroot", self.folder / "run")
        return run("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", *storage, *arguments)

    @contextmanager
    def engine(self, *options: str) -> Iterator["Container"]:
        """Run the image with its volume, until the engine is ready."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limits = ("--ulimit", f"nofile={descriptors}:{descriptors}", "--ulimit", "nproc=4096:4096")
        started = self(
            "run", "--detach", "--network", "none", *limits, *options, "--volume=labrats:/data", MACHINE.image
        )
        container = Container(self, started.strip())
        try:
            container.wait()
            yield container
        finally:
            self("rm", "--force", container.id)


@dataclass(frozen=True)
class Container:
    podman: Podman
    id: str

    def __call__(self, *command: str) -> str:
        return self.podman("exec", self.id, *command)

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while "To sign in" not in self.output():
            assert time.monotonic() < deadline, self.podman("logs", self.id)
            time.sleep(0.2)

    def output(self) -> str:
        return self.podman("logs", self.id)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman with the image for one machine."""
    packages.require(_PODMAN)
    folder = tmp_path_factory.mktemp("podman")
    podman = Podman(folder)
    podman("load", "--quiet", "--input", MACHINE.archive())
    yield podman
    shutil.rmtree(folder)  # some GB


def test_container_runs_a_first_job_and_the_next_one_has_its_data(podman: Podman) -> None:
    with podman.engine() as engine:
        assert engine("id", "-u") == "10001\n"
        assert "open this link once within 15 minutes: http://127.0.0.1:3001/" in engine.output()
        result = engine("labrats", "submit", "-p", "Say hello", "--provider", "mock", "--follow")
        assert "The mock provider read a prompt of 2 words" in result
        engine("sh", "-ec", _INSTALL_A_PROGRAM)
    with podman.engine() as engine:
        assert "completed" in engine("labrats", "jobs")
        assert engine("own-agent") == "it runs\n"


def test_container_has_a_sandbox_if_its_proc_is_not_masked(podman: Podman) -> None:
    with podman.engine("--security-opt=unmask=ALL") as engine:
        (row,) = [line for line in engine("labrats", "doctor").splitlines() if line.startswith("isolation: sandbox")]
        assert row.split()[2] == "ok"
