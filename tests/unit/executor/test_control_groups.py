"""Control groups of attempts, in a kernel whose groups are left to the engine, as systemd does with `Delegate=`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.user_mode_linux import python, run_in_own_kernel


def test_the_kernel_limits_attempts_where_it_leaves_groups_to_the_engine(tmp_path: Path) -> None:
    tests = Path(__file__).with_name("in_delegated_group.py")
    output = run_in_own_kernel(python("-m", "pytest", "-q", "-p", "no:cacheprovider", tests), tmp_path)
    assert "passed" in output
    assert "skipped" not in output


SYSTEMD_RUN = """#!/bin/sh
echo "$@" >> {calls}
{refusal}
while [ "${{1#--}}" != "$1" ]; do shift; done
exec "$@"
"""
ENGINE = """
import os, sys
from pathlib import Path
from labrats.sandbox import control_groups
own = Path("/sys/fs/cgroup", sys.argv[1])
if os.path.exists(sys.argv[3]) and len(open(sys.argv[3]).readlines()) > 1:
    own = own.with_name(f"labrats-{os.getpid()}.scope")  # systemd has moved this process there
control_groups._own_group = lambda: own
print(os.getpid(), control_groups.restart_in_scope(Path(sys.argv[2])), own.name)
"""


@pytest.mark.parametrize(
    ("own", "refusal", "calls"),
    [
        ("session-1.scope", "", 2),
        ("session-1.scope", "echo 'Failed to connect to bus' >&2; exit 1", 1),
        ("labrats.service", "", 0),
    ],
    ids=["session", "without a user manager", "service"],
)
def test_an_engine_that_is_started_by_hand_restarts_in_a_scope_of_systemd(
    tmp_path: Path, own: str, refusal: str, calls: int
) -> None:
    """The program of systemd is a stand-in that records its arguments."""
    program, recorded = tmp_path / "systemd-run", tmp_path / "calls"
    program.write_text(SYSTEMD_RUN.format(calls=recorded, refusal=refusal))
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    engine = tmp_path / "engine.py"
    engine.write_text(ENGINE)
    command = [sys.executable, str(engine), own, str(tmp_path), str(recorded)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    pid, *words = done.stdout.split()
    lines = recorded.read_text().splitlines() if recorded.exists() else []
    assert len(lines) == calls
    options = f"{'' if os.geteuid() == 0 else '--user '}--scope --quiet --collect --property=Delegate=yes"
    assert lines[:1] == [f"{options} true"] * bool(calls)
    if calls == 2:
        assert lines[1].startswith(f"{options} --unit=labrats-{pid}.scope {sys.executable} {engine} {own}")
        assert words == ["None", f"labrats-{pid}.scope"]
    elif refusal:
        assert done.stdout.split(maxsplit=1)[1].strip() == f"{program}: Failed to connect to bus {own}"
    else:
        assert words == ["None", own]
