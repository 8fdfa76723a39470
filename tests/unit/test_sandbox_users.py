"""The sandbox of a process of root and of an ordinary user: what it separates, and what does not exist in it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from labrats.model.protocol import Sandbox
from labrats.sandbox.bubblewrap import confine
from tests.unit.executor.attempts import wait_until

NOBODY = 65534
AS_EXECUTOR = """
import os, sys
from labrats.sandbox.bubblewrap import separate_mounts
separate_mounts()
os.execvp(sys.argv[1], sys.argv[1:])
"""
NAMESPACES = ("user", "mnt", "pid", "ipc", "uts", "cgroup")
SESSION = 5
"""Index of the session in /proc/PID/stat, where the name has no space."""


@dataclass(frozen=True)
class Place:
    """The folders of an engine that runs as `user`, and of its user."""

    folder: Path
    user: int

    def create(self, name: str) -> Path:
        """Create a folder of the user."""
        path = self.folder / name
        path.mkdir()
        os.chown(path, self.user, self.user)
        return path

    def run(self, script: str, *, in_sandbox: bool = True) -> str:
        """Run a shell script as the user, in the sandbox of one job, and return its output."""
        workspace, scratch = self.folder / "engine" / "workspaces" / "own", self.folder / "scratch"
        command = ["/bin/sh", "-c", script]
        if in_sandbox:
            program = shutil.which("bwrap")
            assert program, "bubblewrap is missing: run `make setup`"
            # A setting shows the engine's own folder, so that only the cover of the sandbox hides it.
            sandbox = Sandbox(
                program=program,
                unshare=shutil.which("unshare") if self.user != 0 else None,
                readable=(str(self.folder),),
                hidden=(str(self.folder / "engine"),),
            )
            command = confine(command, sandbox, cwd=workspace, writable=[workspace, scratch], scratch=scratch)
            command = [sys.executable, "-c", AS_EXECUTOR, *command] if self.user == 0 else command
        user, groups = (None, None) if self.user == os.geteuid() else (self.user, (self.user,))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, user=user, group=user, extra_groups=groups, check=False
        )
        return done.stdout + done.stderr


@pytest.fixture(params=["root", "ordinary user"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    is_root = os.geteuid() == 0
    if request.param == "root" and not is_root:
        pytest.skip("needs root")
    user = NOBODY if request.param != "root" and is_root else os.geteuid()
    folder = Path(tempfile.mkdtemp(prefix="labrats-sandbox-"))
    try:
        os.chown(folder, user, user)
        place = Place(folder, user)
        for name in (
            "home",
            "scratch",
            "engine",
            "engine/workspaces",
            "engine/workspaces/own",
            "engine/workspaces/other",
        ):
            place.create(name)
        for name in ("home/.ssh-key", "engine/admin.key", "engine/workspaces/other/notes"):
            (folder / name).write_text("secret\n")
            os.chown(folder / name, user, user)
        yield place
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def outside() -> Callable[[str], str]:
    return lambda name: os.readlink(f"/proc/self/ns/{name}")


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_confined_process_has_its_own_namespace(place: Place, outside: Callable[[str], str], namespace: str) -> None:
    inside = place.run(f"readlink /proc/self/ns/{namespace}").strip()
    assert inside.startswith(f"{namespace}:[")
    assert inside != outside(namespace)


def test_a_confined_process_has_a_session_of_its_own(place: Place) -> None:
    """Otherwise it could type commands into the terminal of the engine."""
    session = place.run("cat /proc/$$/stat").split()[SESSION]
    assert session != "0"  # that of a session whose leader is outside of the process namespace


def test_files_of_the_engine_and_of_other_jobs_do_not_exist(place: Place) -> None:
    engine = place.folder / "engine"
    for path in ("admin.key", "workspaces/other/notes"):
        assert place.run(f"cat {engine / path}", in_sandbox=False) == "secret\n"
        assert place.run(f"cat {engine / path}").endswith("No such file or directory\n")
    assert place.run(f"ls -A {engine} {engine}/workspaces").split() == [
        f"{engine}:", "workspaces", f"{engine}/workspaces:", "own",
    ]  # fmt: skip


def test_homes_of_users_do_not_exist(place: Place) -> None:
    homes = [Path.home(), Path("/root"), Path("/home")]
    for home in homes:
        assert "No such file or directory" in place.run(f"ls -A {home}/"), home


def test_processes_of_others_do_not_exist(place: Place) -> None:
    others = place.run(f"ls -d /proc/[0-9]*; cat /proc/{os.getpid()}/environ").splitlines()
    assert others.pop().endswith("No such file or directory")
    assert 0 < len(others) <= 4  # the sandbox's own process, the shell, and ls


def test_memory_of_the_sandbox_itself_does_not_exist(place: Place) -> None:
    """An agent could change its program, so that its processes survive their executor."""
    assert place.run("ls -A /proc/1; cat /proc/1/mem").endswith("/proc/1/mem: No such file or directory\n")
    assert place.run("touch /proc/1/x && echo written") != "written\n"


def test_other_folders_cannot_be_written(place: Place) -> None:
    for folder in ("/", "/usr", "/etc", place.folder / "home", place.folder / "engine", "/sys/fs/cgroup"):
        assert place.run(f"touch {folder}/x && echo written") != "written\n", folder
    assert place.run("touch here /tmp/there && echo written") == "written\n"


def test_a_confined_process_can_create_no_namespaces(place: Place) -> None:
    for option in ("--user", "--net", "--mount"):
        assert "written" not in place.run(f"unshare {option} echo written"), option


def test_a_confined_process_has_no_capability(place: Place) -> None:
    found = place.run("grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status").split()[1::2]
    assert found == ["0" * 16] * 5


@pytest.fixture
def shared_folder(place: Place) -> Iterator[Path]:
    """A shown folder whose later mounts reach all namespaces that have not cut themselves off, as systemd's do."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    folder = place.create("home/shared")
    (folder / "later").mkdir()
    for options in (("--bind", folder, folder), ("--make-shared", folder)):
        subprocess.run(["mount", *options], check=True)
    yield folder
    subprocess.run(["umount", "--recursive", folder], check=True)


def test_a_file_system_that_is_mounted_later_does_not_appear(place: Place, shared_folder: Path) -> None:
    running, later = place.folder / "engine" / "workspaces" / "own" / "running", shared_folder / "later"
    script = f"touch running; while [ -e running ]; do sleep 0.05; done; touch {later}/x && echo written; ls {later}"
    with ThreadPoolExecutor() as pool:
        output = pool.submit(place.run, script)
        wait_until(running.exists, "the process runs")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "later", later], check=True)
        (later / "host").touch()
        running.unlink()
        found = output.result()
    assert "written" not in found
    assert "host" not in found
