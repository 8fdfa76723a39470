"""Network namespaces of child processes."""

import os
import shutil
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from labrats.sandbox.network_namespace import NetworkNamespace, namespace_problem

NOBODY = 65534
PORT = 3128
SPEAKS = f"exec 3<>/dev/tcp/127.0.0.1/{PORT}; echo from inside >&3; cat <&3"

USERS = [None, *([NOBODY] if os.geteuid() == 0 else [])]


@pytest.mark.parametrize("user", USERS)
def test_child_reaches_the_sockets_of_its_namespace(user: int | None) -> None:
    with closing(NetworkNamespace([PORT])) as namespace:
        command = ["bash", "-c", SPEAKS]
        child = subprocess.Popen(command, preexec_fn=namespace.enter, stdout=subprocess.PIPE, user=user)
        (listener,) = namespace.listeners()
        with listener, listener.accept()[0] as connection:
            assert connection.recv(100) == b"from inside\n"
            connection.sendall(b"from outside\n")
        assert child.communicate(timeout=10)[0] == b"from outside\n"


@pytest.mark.parametrize("user", USERS)
def test_child_has_only_loopback_and_no_service_of_the_machine(user: int | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service, closing(NetworkNamespace([])) as namespace:
        port = service.getsockname()[1]
        script = f"grep -c : /proc/net/dev; : < /dev/tcp/127.0.0.1/{port}"
        child = subprocess.run(
            ["bash", "-c", script], preexec_fn=namespace.enter, capture_output=True, text=True, user=user, check=False
        )
        service.setblocking(False)
        with pytest.raises(BlockingIOError):
            service.accept()
    assert child.stdout.splitlines()[0] == "1", child.stdout
    assert "Connection refused" in child.stderr


def test_child_that_cannot_open_its_sockets_gives_the_reason() -> None:
    with closing(NetworkNamespace([PORT, PORT])) as namespace:
        with pytest.raises(subprocess.SubprocessError):
            subprocess.run(["true"], preexec_fn=namespace.enter, check=False)
        with pytest.raises(OSError, match="Address already in use"):
            namespace.listeners()


def test_sandbox_works_in_a_namespace() -> None:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    assert namespace_problem(program) is None


@pytest.mark.parametrize(("failures", "works"), [(2, True), (3, False)])
def test_mount_that_ends_during_the_test_is_no_problem(tmp_path: Path, failures: int, works: bool) -> None:
    """A node of Kubernetes has many that begin and end."""
    program, count = tmp_path / "bwrap", tmp_path / "count"
    error = "bwrap: Can't bind mount /oldroot/ on /newroot/: Unable to apply mount flags"
    program.write_text(
        f'#!/bin/sh\necho run >> {count}\n[ $(wc -l < {count}) -gt {failures} ] || {{ echo "{error}" >&2; exit 1; }}\n'
    )
    program.chmod(0o755)
    assert namespace_problem(str(program)) == (None if works else error)


def test_program_that_fails_in_a_namespace_is_a_problem() -> None:
    assert namespace_problem("false") == "bwrap failed"
