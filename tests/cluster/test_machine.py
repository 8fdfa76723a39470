"""Tests of the image for one machine: podman runs it as users do, to its first job, and its data outlive the container.

podman runs as an ordinary user, with runc because crun refuses the control groups of some machines. Containers have no
network: commands run inside.
"""

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from typing import Final

import pytest

from tests.cluster import packages
from tests.cluster.product import MACHINE
from tests.cluster.shell import run

_PODMAN: Final = {"podman": "podman", "runc": "runc", "newuidmap": "uidmap"}
_USER: Final = 54321
_AS_USER: Final = """\
for file in passwd group subuid subgid; do mount --bind "$2/$file" "/etc/$file"; done
cd "$2/home"
exec setpriv --reuid="$1" --regid="$1" --clear-groups env HOME="$2/home" XDG_RUNTIME_DIR="$2/run" "${@:3}"
"""
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
    """podman of a user with ranges of ids, who exists in the view of podman alone. folder: of the user's files."""

    folder: Path

    @classmethod
    def of_a_new_user(cls, folder: Path) -> "Podman":
        for name in ("home", "run"):
            (folder / name).mkdir()
            os.chown(folder / name, _USER, _USER)
        etc = Path("/etc")
        (folder / "passwd").write_text(
            f"{(etc / 'passwd').read_text()}tester:x:{_USER}:{_USER}::{folder}/home:/bin/sh\n"
        )
        (folder / "group").write_text(f"{(etc / 'group').read_text()}tester:x:{_USER}:\n")
        for name in ("subuid", "subgid"):
            (folder / name).write_text("tester:200000:65536\n")
            (etc / name).touch()  # to be mounted over
        (folder / "as-user").write_text(_AS_USER)
        return cls(folder)

    def __call__(self, *arguments: str | Path) -> str:
        command = ("podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc")
        user = ("unshare", "--mount", "bash", self.folder / "as-user", str(_USER), self.folder)
        return run(*user, *command, "--events-backend", "file", *arguments)

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
def podman() -> Iterator[Podman]:
    """podman with the image for one machine."""
    packages.require(_PODMAN)
    with tempfile.TemporaryDirectory(prefix="labrats-podman-") as name:  # those of pytest are closed to other users
        folder = Path(name)
        folder.chmod(0o711)
        podman = Podman.of_a_new_user(folder)
        copy(MACHINE.archive(), folder / "image.tar")  # the cache folder may be private
        podman("load", "--quiet", "--input", folder / "image.tar")
        yield podman
        podman("system", "migrate")  # ends the process that holds the user's namespace


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
