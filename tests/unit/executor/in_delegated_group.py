"""Tests for a kernel of their own, with all of cgroup v2; see test_control_groups.py."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labrats.model.config import JobConfig
from labrats.model.job import FailedCode
from labrats.model.protocol import ErrorEvent, ResourceLimits, Sandbox
from labrats.sandbox.control_groups import create_group_of_jobs, delegated_group, own_group, problem_of_delegated_group
from tests.unit.executor.attempts import an_attempt

ROOT = Path("/sys/fs/cgroup")
MEBIBYTE = 2**20
USER = 12345
LIMITS = ResourceLimits(memory_bytes=64 * MEBIBYTE, processes=4, cpus=1)
FILL = f"open('/proc/self/oom_score_adj', 'w').write('500'); filled = b'x' * {700 * MEBIBYTE}"
FORK = """
import os, time
children = []
try:
    while len(children) < 500:
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
except BlockingIOError:
    print(len(children))
for child in children:
    os.kill(child, 9)
    os.waitpid(child, 0)
"""


def enter(group: Path) -> None:
    (group / "cgroup.procs").write_text("0")


@pytest.fixture
def service() -> Iterator[Path]:
    """Make the group of a service, and run this process in the group below it, as systemd does."""
    (ROOT / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    group = ROOT / "labrats.service"
    (group / "engine").mkdir(parents=True)
    enter(group / "engine")
    os.setxattr(group, "trusted.delegate", b"1")
    yield group
    enter(ROOT)
    for folder in sorted((each for each in group.rglob("*") if each.is_dir()), reverse=True):
        folder.rmdir()
    group.rmdir()


def test_only_a_group_that_is_left_to_the_engine_is_used(service: Path) -> None:
    assert delegated_group() == service
    os.removexattr(service, "trusted.delegate")
    assert delegated_group() is None
    assert create_group_of_jobs(LIMITS) is None
    os.chown(service, USER, USER)  # as systemd's own groups of a user
    assert delegated_group() is None
    os.setxattr(service, "user.delegate", b"1")
    assert delegated_group() == service


def test_engine_in_a_scope_moves_into_a_group_below(service: Path) -> None:
    enter(service)
    os.setxattr(service, "trusted.delegate", b"1")
    assert create_group_of_jobs(LIMITS) == service / "jobs"
    assert Path("/proc/self/cgroup").read_text().strip() == "0::/labrats.service/engine"
    assert create_group_of_jobs(LIMITS) == service / "jobs"


IN_CONTAINER = """
import subprocess
from labrats.model.protocol import ResourceLimits
from labrats.sandbox.control_groups import create_group_of_jobs, delegated_group
assert str(delegated_group()) == "/sys/fs/cgroup", delegated_group()
with subprocess.Popen(["sleep", "60"]) as other:
    print(create_group_of_jobs(ResourceLimits(memory_bytes=2**30)))
    print(open("/proc/self/cgroup").read().strip(), open(f"/proc/{other.pid}/cgroup").read().strip())
    other.kill()
"""


def test_engine_in_a_container_uses_its_groups_if_it_may_write_them(service: Path) -> None:
    os.removexattr(service, "trusted.delegate")
    enter(service)
    mounted = 'umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
    command = ["unshare", "--cgroup", "--mount", "sh", "-c", mounted, "sh", sys.executable, "-c", IN_CONTAINER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["/sys/fs/cgroup/jobs", "0::/engine", "0::/engine"], done.stderr


def test_group_with_processes_of_its_own_cannot_be_used(service: Path) -> None:
    sleeping = subprocess.Popen(["sleep", "60"])
    (service / "cgroup.procs").write_text(str(sleeping.pid))
    assert create_group_of_jobs(LIMITS) is None
    assert "has processes of its own" in (problem_of_delegated_group() or "")
    sleeping.kill()
    sleeping.wait()
    assert problem_of_delegated_group() is None


def test_engine_of_an_ordinary_user_uses_the_group_that_it_was_given(service: Path) -> None:
    os.setxattr(service, "user.delegate", b"1")  # an ordinary user cannot read the other one
    for path in (service, service / "cgroup.procs", service / "cgroup.subtree_control"):
        os.chown(path, USER, USER)
    if (child := os.fork()) == 0:
        os.setresuid(USER, USER, USER)
        jobs = create_group_of_jobs(ResourceLimits())
        assert jobs
        with own_group(jobs / "ir-1", ResourceLimits(), 1000):
            is_inside = Path("/proc/self/cgroup").read_text().strip() == "0::/labrats.service/jobs/ir-1"
        is_outside = Path("/proc/self/cgroup").read_text().strip() == "0::/labrats.service/executors"
        os._exit(0 if is_inside and is_outside and not (jobs / "ir-1").exists() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_memory_beyond_the_limit_ends_what_takes_it_and_nothing_else(service: Path) -> None:
    jobs = create_group_of_jobs(LIMITS)
    assert jobs == service / "jobs"
    assert (jobs / "cpu.max").read_text().split() == ["100000", "100000"]
    with own_group(jobs / "ir-1", LIMITS, 1000) as group:
        assert subprocess.run([sys.executable, "-c", FILL], check=False).returncode == -9
        assert group.ended_processes == 1
    assert not (jobs / "ir-1").exists()


@pytest.mark.parametrize(("processes", "most"), [(1, 32 + 64), (None, 20 + 64)])
def test_processes_beyond_the_limit_do_not_start(service: Path, processes: int | None, most: int) -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    jobs = create_group_of_jobs(LIMITS)
    assert jobs
    with own_group(jobs / "ir-1", ResourceLimits(processes=processes), 20):
        done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False)
    assert most - 10 <= int(done.stdout.split()[0]) < most, done.stderr


def test_attempt_runs_in_a_group_of_its_own_and_fails_at_its_limit(service: Path, tmp_path: Path) -> None:
    jobs = create_group_of_jobs(LIMITS)
    program, agent = shutil.which("bwrap"), tmp_path / "agent"
    assert program
    shown = f"cat {service}/jobs/ir-0000000a-1/memory.max {service}/jobs/ir-0000000a-1/pids.max > seen"
    agent.write_text(f'#!/bin/sh\n{shown}\n{sys.executable} -c "{FILL.partition("; ")[2]}"\n')
    agent.chmod(0o755)
    limits = ResourceLimits(memory_bytes=64 * MEBIBYTE, control_groups=str(jobs))
    sandbox = Sandbox(program=program, readable=(sys.prefix, sys.base_prefix))
    config, programs = JobConfig(provider="claude"), {"claude": str(agent)}
    attempt = an_attempt(tmp_path, config=config, programs=programs, limits=limits, sandbox=sandbox)
    attempt.run()
    assert isinstance(attempt.outcome, ErrorEvent)
    assert attempt.outcome.code is FailedCode.OUT_OF_MEMORY
    assert "over LABRATS_AGENT_MEMORY (64 MiB)" in attempt.outcome.message
    memory, threads = (attempt.workspace / "seen").read_text().split()
    assert int(memory) == (64 + 512) * MEBIBYTE
    assert int(threads) > 64
    assert not (service / "jobs" / "ir-0000000a-1").exists()
