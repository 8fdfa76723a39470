"""Kinds of files of which the kernel has only so many."""

import subprocess
import sys
from pathlib import Path

import pytest

from labrats.executor.resource_limits import scarce_files
from tests.unit.executor.attempts import DEADLINE_SECONDS

IS_USED_UP = """
from labrats.executor.resource_limits.scarce_files import KINDS
print([kind.name for kind in KINDS if kind.is_used_up()])
"""
TAKE_PORTS = "import socket; held = [socket.create_server(('', 0)) for _ in range(2)]"
TAKE_UDP_PORTS = """
import socket
held = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
[each.bind(("", 0)) for each in held]
"""


@pytest.mark.parametrize(
    ("setting", "program", "used_up"),
    [
        ("true", IS_USED_UP, "[]"),
        ("echo 0 > /proc/sys/user/max_inotify_instances", IS_USED_UP, "['instances of inotify']"),
        ("echo 0 > /proc/sys/user/max_inotify_watches", IS_USED_UP, "['watches of inotify']"),
        ("echo 2000 2001 > /proc/sys/net/ipv4/ip_local_port_range", f"{TAKE_PORTS}\n{IS_USED_UP}", "['sockets']"),
        ("echo 2000 2001 > /proc/sys/net/ipv4/ip_local_port_range", f"{TAKE_UDP_PORTS}\n{IS_USED_UP}", "['sockets']"),
    ],
    ids=["nothing", "inotify", "watches of inotify", "ports", "ports of UDP"],
)
def test_used_up_files_are_noticed(setting: str, program: str, used_up: str) -> None:
    script = f'{setting} && exec "$0" -c "$1"'
    command = ["unshare", "--user", "--net", "--map-root-user", "sh", "-c", script, sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True)
    assert done.stdout.strip() == used_up


def test_used_up_terminals_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nr").write_text("3072\n")
    monkeypatch.setattr(scarce_files, "_OPEN_TERMINALS", tmp_path / "nr")
    assert [kind.name for kind in scarce_files.KINDS if kind.is_used_up()] == ["terminals"]
