"""System calls of agents in the sandbox."""

import fcntl
import platform
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from labrats.executor.confinement import rules_in_pod
from labrats.model.protocol import Sandbox
from labrats.sandbox.seccomp import _MACHINES, _REFUSED, IN_POD, can_refuse_calls
from tests.unit.executor.attempts import a_task
from tests.unit.executor.test_agent_sandbox import a_confined_attempt, output_of

NUMBERS = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_getfd": 438, "bpf": 321,
        "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249, "keyctl": 250,
        "sched_setaffinity": 203, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "pidfd_getfd": 438, "bpf": 280,
        "perf_event_open": 241, "userfaultfd": 282, "add_key": 217, "request_key": 218, "keyctl": 219,
        "sched_setaffinity": 122, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435,
    },
}[platform.machine()]  # fmt: skip
"""Refused system calls, by the kernel's own tables."""

CALLS = _MACHINES[platform.machine()].calls

DEBUGGING = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd")


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
    assert {name: CALLS[name] for name in _REFUSED} == NUMBERS


@pytest.mark.parametrize("may_debug", [False, True])
def test_calls_are_refused_and_those_of_debuggers_by_setting(tmp_path: Path, may_debug: bool) -> None:
    found = refusals(tmp_path, a_sandbox(may_debug=may_debug))
    unavailable = {name: error for name, error in found.items() if name.startswith("io_") or name == "clone3"}
    assert set(unavailable) == {"io_uring_setup", "io_uring_enter", "io_uring_register", "clone3"}
    assert set(unavailable.values()) == {"Function not implemented"}
    debugging = [found.pop(name) == "Operation not permitted" for name in DEBUGGING]
    assert debugging == [not may_debug] * len(DEBUGGING)
    assert found.pop("sched_setaffinity") == "Invalid argument"  # refused with a limit on the processors only
    assert {error for name, error in found.items() if name not in unavailable} == {"Operation not permitted"}


def test_no_lease_makes_other_programs_wait(tmp_path: Path) -> None:
    taken = "; ".join(
        f'print "{name}: ", (defined(fcntl(F, {command}, 0)) ? "done" : $!), "\\n"'
        for name, command in {
            "lease": fcntl.F_SETLEASE,
            "status": fcntl.F_GETFL,
        }.items()
    )
    script = f'touch own; perl -e \'open(F, "<", "own"); {taken}\' > out'
    lines = output_of(a_confined_attempt(tmp_path, a_sandbox(may_debug=False), script)).splitlines()
    assert lines == ["lease: Invalid argument", "status: done"]


def test_no_port_of_another_process_is_shared(tmp_path: Path) -> None:
    """The kernel gives each listener of one user a part of the connections."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        options = {name: getattr(socket, name) for name in ("SO_REUSEPORT", "SO_REUSEADDR", "SO_KEEPALIVE")}
        taken = "; ".join(
            f'print "{name} ", (setsockopt(S, {socket.SOL_SOCKET}, {option}, 1) ? "done" : $!), "\\n"'
            for name, option in options.items()
        )
        listen = f'bind(S, pack_sockaddr_in({port}, inet_aton("127.0.0.1"))) && listen(S, 9) ? "taken" : $!'
        opened = f"use Socket; socket(S, PF_INET, SOCK_STREAM, 0); {taken}; print {listen}"
        script = f"perl -e '{opened}' > out"
        lines = output_of(a_confined_attempt(tmp_path, a_sandbox(may_debug=False), script)).splitlines()
    assert lines == [
        "SO_REUSEPORT Protocol not available", "SO_REUSEADDR done", "SO_KEEPALIVE done", "Address already in use",
    ]  # fmt: skip


SNAPSHOT, BCACHEFS_SUBVOLUME, CLONE, WINDOW_SIZE = 0x5000940F, 0x4010BC10, 0x40049409, 0x5413


def test_no_request_makes_a_snapshot(tmp_path: Path) -> None:
    """On Btrfs, every user may make subvolumes, and snapshots that cannot be deleted. Copies of files stay possible."""
    call, requests = CALLS["ioctl"], (SNAPSHOT, BCACHEFS_SUBVOLUME, CLONE, WINDOW_SIZE)
    script = 'open(F, "<", "."); my $none = chr(0) x 4096; ' + "; ".join(
        f'print syscall({call}, fileno(F), {request}, $none) < 0 ? "$!\n" : "done\n"' for request in requests
    )
    attempt = a_confined_attempt(tmp_path, a_sandbox(may_debug=False), f"perl -e '{script}' > out")
    snapshot, subvolume, clone, size = output_of(attempt).splitlines()
    assert {snapshot, subvolume} == {"Operation not permitted"}
    assert "Operation not permitted" not in (clone, size)


def test_limit_on_core_dumps_stays(tmp_path: Path) -> None:
    """The kernel finds no limit at the address 1. A refused call does not get that far, and seems to succeed."""
    core, files = resource.RLIMIT_CORE, resource.RLIMIT_NOFILE
    calls = {
        "setrlimit": f"{CALLS['setrlimit']}, {core}, 1",
        "prlimit": f"{CALLS['prlimit']}, 0, {core}, 1, 0",
        "prlimit that reads": f"{CALLS['prlimit']}, 0, {core}, 0, 1",
        "setrlimit of files": f"{CALLS['setrlimit']}, {files}, 1",
        "prlimit of files": f"{CALLS['prlimit']}, 0, {files}, 1, 0",
    }
    script = "; ".join(f'print "{name}: ", syscall({call}), "\\n"' for name, call in calls.items())
    lines = output_of(
        a_confined_attempt(tmp_path, a_sandbox(may_debug=False), f"perl -e '{script}' > out")
    ).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["0", "0", "-1", "-1", "-1"]


def test_sockets_of_unusual_networks_are_refused(tmp_path: Path) -> None:
    """Sockets to the host of a virtual machine are in no network namespace."""
    families = {
        "unix": socket.AF_UNIX, "inet": socket.AF_INET, "inet6": socket.AF_INET6, "netlink": socket.AF_NETLINK,
        "vsock": socket.AF_VSOCK, "packet": socket.AF_PACKET, "kernel crypto": socket.AF_ALG, "can": socket.AF_CAN,
    }  # fmt: skip
    script = "use Socket; " + " ".join(
        f'print "{name}: ", (socket(my $s{number}, {number}, SOCK_DGRAM, 0) ? "" : $!), "\n";'
        for name, number in families.items()
    )
    lines = output_of(a_confined_attempt(tmp_path, a_sandbox(may_debug=True), f"perl -e '{script}' > out")).splitlines()
    errors = dict(line.split(": ", 1) for line in lines)
    refused = {name for name, error in errors.items() if error == "Address family not supported by protocol"}
    assert refused >= {"vsock", "packet", "kernel crypto", "can"}
    assert not refused & {"unix", "inet", "netlink"}


def test_no_socket_is_for_an_unusual_protocol(tmp_path: Path) -> None:
    """The kernel would load modules for them."""
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    kinds = [
        (family, kind, protocol)
        for family in (socket.AF_INET, socket.AF_INET6)
        for kind, protocol in (
            (stream, socket.IPPROTO_TCP),
            (datagram, socket.IPPROTO_UDPLITE),
            (stream, socket.IPPROTO_SCTP),
            (datagram, 115),  # L2TP
        )
    ]
    script = "use Socket; " + "; ".join(
        f'print socket(S, {family}, {kind}, {protocol}) ? "opened\n" : "$!\n"' for family, kind, protocol in kinds
    )
    attempt = a_confined_attempt(tmp_path, a_sandbox(may_debug=False), f"perl -e '{script}' > out")
    assert output_of(attempt).splitlines() == ["opened", "opened", *["Protocol not supported"] * 2] * 2


def test_no_terminal_gets_another_line_discipline(tmp_path: Path) -> None:
    """It may load a module of the kernel, which have had defects by which programs got root's rights."""
    program = """
import fcntl, os, struct
for request in (0x5424, 0x5423):  # TIOCGETD, TIOCSETD
    try:
        fcntl.ioctl(os.openpty()[1], request, struct.pack("i", 0))
        print("done")
    except OSError as error:
        print(error.strerror)
"""
    (tmp_path / "program.py").write_text(program)
    sandbox = replace(a_sandbox(may_debug=False), readable=(str(tmp_path / "program.py"),))
    attempt = a_confined_attempt(tmp_path, sandbox, f"/usr/bin/python3 {tmp_path}/program.py > out")
    assert output_of(attempt).splitlines() == ["done", "Operation not permitted"]


def test_pairs_of_sockets_are_local(tmp_path: Path) -> None:
    families = (socket.AF_UNIX, socket.AF_INET, 30)  # the last one is TIPC
    script = "; ".join(f'print socketpair(A, B, {family}, 1, 0) ? "opened\n" : "$!\n"' for family in families)
    attempt = a_confined_attempt(tmp_path, a_sandbox(may_debug=False), f"perl -e '{script}' > out")
    assert output_of(attempt).splitlines() == ["opened", *["Address family not supported by protocol"] * 2]


def test_no_process_hides_its_mounts(tmp_path: Path) -> None:
    """An engine of an ordinary user could not find an undumpable process that outlives its executor."""
    prctl, set_dumpable, get_dumpable = CALLS["prctl"], 4, 3
    calls = (f"{set_dumpable}, 0", f"{get_dumpable}, 0", f"{set_dumpable}, 1")
    script = "; ".join(f'print syscall({prctl}, {call}, 0, 0, 0), "\n"' for call in calls)
    attempt = a_confined_attempt(tmp_path, a_sandbox(may_debug=False), f"perl -e '{script}' > out")
    assert output_of(attempt).splitlines() == ["0", "1", "0"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has the ABI x32")
def test_calls_of_another_abi_are_refused(tmp_path: Path) -> None:
    x32_getpid = 0x40000000 + 39
    script = f"perl -e 'print syscall({x32_getpid}), \" $!\"' > out"
    attempt = a_confined_attempt(tmp_path, a_sandbox(may_debug=False), script)
    assert output_of(attempt) == "-1 Function not implemented"


TRY_SOCKETS = """
import errno, socket, sys
from dataclasses import replace
from labrats.sandbox.seccomp import IN_POD, refuse_calls
refuse_calls(replace(IN_POD, only_tcp_and_udp=True, may_use_ipv6={ipv6}))
kinds = {{
    "tcp": (socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM, 17),
    "mptcp": (socket.AF_INET, socket.SOCK_STREAM, 262),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM, 6), "unix": (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0),
    "ping": (socket.AF_INET, socket.SOCK_DGRAM, 1), "ping6": (socket.AF_INET6, socket.SOCK_DGRAM, 58),
    "sctp": (socket.AF_INET, socket.SOCK_SEQPACKET, 0), "udplite": (socket.AF_INET, socket.SOCK_DGRAM, 136),
    "raw": (socket.AF_INET, socket.SOCK_RAW, 255), "routes": (socket.AF_NETLINK, socket.SOCK_RAW, 0),
}}
for name, kind in kinds.items():
    try:
        socket.socket(*kind).close()
    except OSError as error:
        print(name, errno.errorcode[error.errno])
    else:
        print(name, "opened")
"""


CHANGE_ANOTHER = """
import ctypes, errno, os, resource, subprocess, sys
from labrats.sandbox.seccomp import IN_POD, refuse_calls
refuse_calls(IN_POD)
libc, calls = ctypes.CDLL(None, use_errno=True), {calls}
files, found = resource.RLIMIT_NOFILE, ctypes.create_string_buffer(16)
limit = ctypes.create_string_buffer((99).to_bytes(8, sys.byteorder) * 2)
BATCH = 3
attributes = ctypes.create_string_buffer((48).to_bytes(4, sys.byteorder) + bytes([BATCH]) + bytes(43))
first_processor = (1 << min(os.sched_getaffinity(0))).to_bytes(128, sys.byteorder)

def state(pid):
    priority = os.getpriority(os.PRIO_PROCESS, pid)
    return priority, os.sched_getscheduler(pid), os.sched_getaffinity(pid), resource.prlimit(pid, files)

with subprocess.Popen(["sleep", "20"]) as other:
    before = state(other.pid)
    for whose, thread in {{"other": other.pid, "own": 0}}.items():
        for name, arguments in {{
            "prlimit": (thread, files, limit, None), "prlimit that reads": (thread, files, None, found),
            "setpriority": (os.PRIO_PROCESS, thread, 5), "setpriority of a group": (os.PRIO_PGRP, thread, 5),
            "ioprio_set": (1, thread, 0), "ioprio_set of a user": (3, thread, 0),
            "sched_setparam": (thread, bytes(4)), "sched_setscheduler": (thread, BATCH, bytes(4)),
            "sched_setattr": (thread, attributes, 0), "sched_setaffinity": (thread, 128, first_processor),
        }}.items():
            result = libc.syscall(calls[name.split()[0]], *arguments)
            print(name, whose, errno.errorcode[ctypes.get_errno()] if result < 0 else "done", sep=":")
    print(state(other.pid) == before, state(0) != before)
    other.kill()
"""


def test_agent_in_a_pod_changes_neither_limits_nor_priorities_of_other_processes() -> None:
    """The executor is one of them, with the agent's user. Without descriptors or a processor, it measures nothing."""
    names = ("prlimit", "sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity", "setpriority")
    script = CHANGE_ANOTHER.format(calls={name: CALLS[name] for name in (*names, "ioprio_set")})
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *lines, states = done.stdout.splitlines()
    results = {(name, whose): result for name, whose, result in (line.split(":") for line in lines)}
    # C libraries name the calling thread by its id, and fail to start a thread if that is refused.
    assert results == {**dict.fromkeys(results, "done"), ("prlimit", "other"): "EPERM"}
    assert states == "True True"


@pytest.mark.parametrize("ipv6", [True, False])
def test_agent_in_a_pod_with_a_network_rule_opens_only_sockets_that_policies_cover(ipv6: bool) -> None:
    """Some plugins let through ICMP, and a cluster without IPv6 has no policy for link-local addresses."""
    script = TRY_SOCKETS.format(ipv6=ipv6)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = dict(line.split() for line in done.stdout.splitlines())
    assert found == {
        **dict.fromkeys(("tcp", "udp", "unix", "routes"), "opened"),
        **dict.fromkeys(("ping", "sctp", "udplite", "raw", "mptcp"), "EPERM"),
        "tcp6": "opened" if ipv6 else "EAFNOSUPPORT",
        "ping6": "EPERM" if ipv6 else "EAFNOSUPPORT",
    }


def test_rules_in_a_pod_follow_its_network(tmp_path: Path) -> None:
    confined = replace(a_task(tmp_path), egress_proxy=("10.96.0.9", 8080))
    both = replace(confined, policy_tests=(("10.96.0.9", 8080), ("fd00::9", 8080)))
    assert rules_in_pod(a_task(tmp_path)) == IN_POD
    rules = [(each.only_tcp_and_udp, each.may_use_ipv6) for each in map(rules_in_pod, (confined, both))]
    assert rules == [(True, False), (True, True)]
