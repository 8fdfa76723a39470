"""System calls of agents in the sandbox."""

import platform
import shutil
from pathlib import Path

import pytest

from labrats.model.protocol import Sandbox
from labrats.system_calls import _MACHINES, can_refuse_calls
from tests.unit.executor.test_agent_sandbox import a_confined_attempt, output_of

NUMBERS = _MACHINES[platform.machine()].calls
DEBUGGING = ("ptrace", "process_vm_readv", "process_vm_writev")


def a_sandbox(*, may_debug: bool) -> Sandbox:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    return Sandbox(program=program, may_debug=may_debug)


def refusals(tmp_path: Path, sandbox: Sandbox) -> dict[str, str]:
    """Call each refused system call with zeros from an agent. Return the errors by name."""
    calls = "; ".join(f'syscall({number}, 0, 0, 0, 0, 0); print "{name} $!\\n"' for name, number in NUMBERS.items())
    lines = output_of(a_confined_attempt(tmp_path, sandbox, f"perl -e '{calls}' > out")).splitlines()
    return dict(line.split(" ", 1) for line in lines)


def test_this_machine_is_known() -> None:
    assert can_refuse_calls()


@pytest.mark.parametrize("may_debug", [False, True])
def test_calls_are_refused_and_those_of_debuggers_by_setting(tmp_path: Path, may_debug: bool) -> None:
    found = refusals(tmp_path, a_sandbox(may_debug=may_debug))
    ring = {name: error for name, error in found.items() if name.startswith("io_uring")}
    assert set(ring.values()) == {"Function not implemented"}
    debugging = {found.pop(name) for name in DEBUGGING}
    assert ("Operation not permitted" in debugging) is not may_debug
    assert {error for name, error in found.items() if name not in ring} == {"Operation not permitted"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has the ABI x32")
def test_calls_of_another_abi_are_refused(tmp_path: Path) -> None:
    x32_getpid = 0x40000000 + 39
    script = f"perl -e 'print syscall({x32_getpid}), \" $!\"' > out"
    attempt = a_confined_attempt(tmp_path, a_sandbox(may_debug=False), script)
    assert output_of(attempt) == "-1 Function not implemented"
