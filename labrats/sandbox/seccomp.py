"""A seccomp filter that refuses system calls through which programs have escaped from sandboxes.

It also refuses the sockets of unusual networks. Some, such as those to the host of a virtual machine, belong to no
network namespace. By `clone3`, an agent of root could start a process in any control group. With a lease on a file of
the machine, it could make programs outside wait that write to the file. A process that made itself undumpable would
hide the mounts by which the engine finds what an attempt has left. Btrfs and bcachefs let every user make snapshots
that only root can delete: on kernels with a former defect, even of the whole volume.

It is a list of what is refused, not of what is allowed: agents run every kind of program.
"""

import ctypes
import errno
import fcntl
import os
import platform
import resource
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Final

from labrats.libc import Prctl, prctl

_MODE_FILTER: Final = 2
"""SECCOMP_MODE_FILTER in linux/seccomp.h."""

_Program = Sequence[bytes]
"""Instructions of a filter. The next program continues after the last one."""

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, (16, 24, 32)
_HIGH_HALF: Final = 4
"""Offsets in struct seccomp_data, and of the high half of an argument in it. The low one contains a small number."""
_DONE: Final = 0
"""The error number with which a refused call seems to have succeeded."""
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000  # with an error number
_X32_BIT: Final = 0x40000000
"""Mark of the system calls of another ABI on x86_64, which would bypass the numbers below."""


@dataclass(frozen=True)
class _Machine:
    """A processor architecture: its code in linux/audit.h, and the numbers of system calls by name."""

    code: int
    calls: Mapping[str, int]


_EVERYWHERE: Final = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435, "pidfd_getfd": 438,
}  # fmt: skip
_MACHINES: Final[Mapping[str, _Machine]] = {
    "x86_64": _Machine(
        0xC000003E,
        {
            "ioctl": 16, "socket": 41, "socketpair": 53, "setsockopt": 54, "fcntl": 72, "ptrace": 101,
            "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144, "prctl": 157, "setrlimit": 160,
            "sched_setaffinity": 203, "add_key": 248, "request_key": 249, "keyctl": 250, "ioprio_set": 251,
            "perf_event_open": 298, "prlimit": 302, "process_vm_readv": 310, "process_vm_writev": 311,
            "sched_setattr": 314, "bpf": 321, "userfaultfd": 323, **_EVERYWHERE,
        },
    ),
    "aarch64": _Machine(
        0xC00000B7,
        {
            "fcntl": 25, "ioctl": 29, "ioprio_set": 30, "ptrace": 117, "sched_setparam": 118,
            "sched_setscheduler": 119, "sched_setaffinity": 122, "setpriority": 140, "setrlimit": 164, "prctl": 167,
            "socket": 198, "socketpair": 199, "setsockopt": 208, "add_key": 217, "request_key": 218, "keyctl": 219,
            "perf_event_open": 241, "prlimit": 261, "process_vm_readv": 270, "process_vm_writev": 271,
            "sched_setattr": 274, "bpf": 280, "userfaultfd": 282, **_EVERYWHERE,
        },
    ),
}  # fmt: skip

_OF_DEBUGGERS: Final = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd")
_OF_PROCESSORS: Final = ("sched_setaffinity",)
_OF_SCHEDULING: Final = ("sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity")
"""Calls whose first argument is the id of a thread."""

_OF_PRIORITIES: Final = {"setpriority": os.PRIO_PROCESS, "ioprio_set": 1}
"""Calls whose second argument is the id of a thread if the first one has this value (for `ioprio_set`,
IOPRIO_WHO_PROCESS). Otherwise it is that of a group or a user.
"""

_FORBIDDEN: Final = (
    *_OF_DEBUGGERS, *_OF_PROCESSORS, "add_key", "request_key", "keyctl", "perf_event_open", "bpf", "userfaultfd",
)  # fmt: skip
_MISSING: Final = ("io_uring_setup", "io_uring_enter", "io_uring_register", "clone3")
_REFUSED: Final[Mapping[str, int]] = {
    **dict.fromkeys(_FORBIDDEN, errno.EPERM),
    **dict.fromkeys(_MISSING, errno.ENOSYS),
}
"""The errors of calls that are refused with any arguments. Some fail as on a kernel without them, so that programs do
without them.
"""

_LOCAL_FAMILIES: Final = (socket.AF_UNIX, socket.AF_NETLINK)
_INTERNET_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
"""Families of the sockets that programs may open."""

_TYPE: Final = 0xF
"""The bits of the second argument of `socket` with the type, beside flags."""

_FILE_SYSTEMS: Final = (0x9400, 0xBC00)
"""The requests of Btrfs and bcachefs, by which users make subvolumes and snapshots."""

_REQUEST_KIND: Final = 0xFF00
"""The bits of the second argument of `ioctl` with the driver or file system that defines the request."""

_CLONE_REQUESTS: Final = (0x40049409, 0x4020940D, 0xC0189436)
"""FICLONE, FICLONERANGE and FIDEDUPERANGE, which Btrfs defined first, and which programs use to copy files."""

_TYPES: Final = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
_PROTOCOLS: Final = (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP)
"""The sockets for which network policies speak. Some plugins let through all other protocols, such as ICMP."""


_USUAL_PROTOCOLS: Final = (
    *_PROTOCOLS,
    *(socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6, socket.IPPROTO_UDPLITE, socket.IPPROTO_RAW, socket.IPPROTO_MPTCP),
)
"""The others load modules of the kernel that hardly anybody uses, such as those of SCTP, DCCP and L2TP."""

_SET_LINE_DISCIPLINE: Final = 0x5423
"""TIOCSETD, which loads a module that reads the bytes of a terminal as packets, such as those of a modem."""


def can_refuse_calls() -> bool:
    """Return whether the numbers of this machine's system calls are known, so that some can be refused."""
    return platform.machine() in _MACHINES


@dataclass(frozen=True)
class CallRules:
    """The calls that processes may make besides those that are never refused.

    may_debug: whether processes may trace each other, as debuggers do.
    may_choose_processors: whether they may choose the processors on which they run.
    may_share_ports: whether they may listen on a port on which another process of the user does (SO_REUSEPORT). The
        kernel would give them a part of its connections.
    only_tcp_and_udp: whether they may open no socket of the internet for another protocol.
    may_use_ipv6: whether they may open sockets for IPv6.
    may_change_others: whether they may change the limits and the priority of processes other than their own, by which
        they could keep one of the same user from its work.
    """

    may_debug: bool = False
    may_choose_processors: bool = False
    may_share_ports: bool = False
    only_tcp_and_udp: bool = False
    may_use_ipv6: bool = True
    may_change_others: bool = True


IN_POD: Final = CallRules(
    may_debug=True,
    may_choose_processors=True,
    may_share_ports=True,
    may_change_others=False,
)
"""The rules in a pod, which has limits, processes and ports of its own. The executor is one of these processes."""


@cache
def refuse_calls(rules: CallRules) -> bool:
    """Refuse the system calls to this thread and to all processes that it starts, once and for ever.

    They fail with the errors in `_REFUSED`. Some do nothing and seem to succeed, as programs such as ssh-agent and sudo
    may insist on them: one that changes the limit on core dumps, see `refuse_core_dumps`; one by which a process makes
    itself undumpable; and those by which others could be kept from their work, see `may_change_others`. Return False,
    and refuse nothing, on an unknown machine. Raises OSError.
    """
    if (machine := _MACHINES.get(platform.machine())) is None:
        return False
    instructions = _program(machine, rules)
    program = ctypes.create_string_buffer(b"".join(instructions))
    fields = struct.pack("@HP", len(instructions), ctypes.addressof(program))  # struct sock_fprog
    prctl(Prctl.PR_SET_NO_NEW_PRIVS, 1)
    prctl(Prctl.PR_SET_SECCOMP, _MODE_FILTER, fields)
    return True


def _program(machine: _Machine, rules: CallRules) -> _Program:
    """Return the instructions of the filter."""
    calls = machine.calls
    allowed = (*(_OF_DEBUGGERS if rules.may_debug else ()), *(_OF_PROCESSORS if rules.may_choose_processors else ()))
    refused = [(calls[name], error) for name, error in _REFUSED.items() if name not in allowed]
    return [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_IF_EQUAL, machine.code, if_true=1),
        _refusal(errno.ENOSYS),  # 32-bit programs have other numbers
        _instruction(_LOAD, _NUMBER),
        _instruction(_JUMP_IF_AT_LEAST, _X32_BIT, if_false=1),
        _refusal(errno.ENOSYS),
        *chain.from_iterable(_of_call(number, [_refusal(error)]) for number, error in refused),
        *_of_call(calls["prctl"], _if(_ARGUMENTS[0], Prctl.PR_SET_DUMPABLE, _if(_ARGUMENTS[1], 0, [_refusal(_DONE)]))),
        *_of_call(calls["setrlimit"], _if(_ARGUMENTS[0], resource.RLIMIT_CORE, [_refusal(_DONE)])),
        # The new limit is the third argument. There is none if the limit is only read.
        *_of_call(
            calls["prlimit"],
            [
                *_if(_ARGUMENTS[1], resource.RLIMIT_CORE, _unless_null(_ARGUMENTS[2], _refusal(_DONE))),
                *(
                    []
                    if rules.may_change_others
                    else _unless(_ARGUMENTS[0], 0, _unless_null(_ARGUMENTS[2], _refusal(errno.EPERM)))
                ),
            ],
        ),
        *([] if rules.may_change_others else _refusal_of_scheduling(calls)),
        *_of_call(calls["fcntl"], _if(_ARGUMENTS[1], fcntl.F_SETLEASE, [_refusal(errno.EINVAL)])),
        *_of_call(
            calls["ioctl"],
            [*_if(_ARGUMENTS[1], _SET_LINE_DISCIPLINE, [_refusal(errno.EPERM)]), *_refusal_of_snapshots()],
        ),
        *(
            []
            if rules.may_share_ports
            else _of_call(
                calls["setsockopt"],
                _if(
                    _ARGUMENTS[1],
                    socket.SOL_SOCKET,
                    _if(_ARGUMENTS[2], socket.SO_REUSEPORT, [_refusal(errno.ENOPROTOOPT)]),
                ),
            )
        ),
        *_of_call(calls["socket"], _refusal_of_sockets(rules)),
        *_of_call(
            calls["socketpair"],
            [_instruction(_LOAD, _ARGUMENTS[0]), *_allow_if(socket.AF_UNIX), _refusal(errno.EAFNOSUPPORT)],
        ),
        _instruction(_RETURN, _ALLOW),
    ]


def _of_call(call: int, program: _Program) -> _Program:
    """Return the instructions for one call, whose number is loaded. The call is allowed unless `program` refuses it."""
    return [
        _instruction(_JUMP_IF_EQUAL, call, if_false=len(program) + 1),
        *program,
        _instruction(_RETURN, _ALLOW),
    ]


def _if(argument: int, value: int, program: _Program) -> _Program:
    """Return the instructions that run `program` if an argument of the call has this value."""
    return [
        _instruction(_LOAD, argument),
        _instruction(_JUMP_IF_EQUAL, value, if_false=len(program)),
        *program,
    ]


def _unless(argument: int, value: int, program: _Program) -> _Program:
    """Return the instructions that run `program` unless an argument of the call has this value."""
    return [
        _instruction(_LOAD, argument),
        _instruction(_JUMP_IF_EQUAL, value, if_true=len(program)),
        *program,
    ]


def _unless_null(pointer: int, refusal: bytes) -> _Program:
    return [
        _instruction(_LOAD, pointer),
        _instruction(_JUMP_IF_EQUAL, 0, if_false=2),
        _instruction(_LOAD, pointer + _HIGH_HALF),
        _instruction(_JUMP_IF_EQUAL, 0, if_true=1),
        refusal,
    ]


def _refusal_of_scheduling(calls: Mapping[str, int]) -> _Program:
    """Return the instructions that keep the priority and the processors of any thread but the calling one.

    The argument 0 stands for that one. C libraries use its id instead, and fail to start a thread if the call fails.
    Therefore it seems to succeed.
    """
    refusal = [_refusal(_DONE)]
    return [
        *chain.from_iterable(_of_call(calls[name], _unless(_ARGUMENTS[0], 0, refusal)) for name in _OF_SCHEDULING),
        *chain.from_iterable(
            _of_call(calls[name], [*_unless(_ARGUMENTS[0], kind, refusal), *_unless(_ARGUMENTS[1], 0, refusal)])
            for name, kind in _OF_PRIORITIES.items()
        ),
    ]


def _refusal_of_snapshots() -> _Program:
    refused = [(_instruction(_JUMP_IF_EQUAL, kind, if_false=1), _refusal(errno.EPERM)) for kind in _FILE_SYSTEMS]
    return [
        _instruction(_LOAD, _ARGUMENTS[1]),
        *chain.from_iterable(map(_allow_if, _CLONE_REQUESTS)),
        _instruction(_AND, _REQUEST_KIND),
        *chain.from_iterable(refused),
    ]


def _refusal_of_sockets(rules: CallRules) -> _Program:
    """Return the instructions that refuse to open a socket of another family or protocol."""
    internet = _INTERNET_FAMILIES if rules.may_use_ipv6 else _INTERNET_FAMILIES[:1]
    checked = _refusal_of_protocols() if rules.only_tcp_and_udp else _refusal_of_unusual_protocols()
    return [
        _instruction(_LOAD, _ARGUMENTS[0]),
        *chain.from_iterable(_allow_if(family) for family in _LOCAL_FAMILIES),
        *chain.from_iterable(
            (_instruction(_JUMP_IF_EQUAL, family, if_false=len(checked)), *checked) for family in internet
        ),
        _refusal(errno.EAFNOSUPPORT),
    ]


def _refusal_of_unusual_protocols() -> _Program:
    allowed = chain.from_iterable(map(_allow_if, _USUAL_PROTOCOLS))
    return [_instruction(_LOAD, _ARGUMENTS[2]), *allowed, _refusal(errno.EPROTONOSUPPORT)]


def _refusal_of_protocols() -> _Program:
    refusal = _refusal(errno.EPERM)
    types = [_instruction(_JUMP_IF_EQUAL, kind, if_true=len(_TYPES) - at) for at, kind in enumerate(_TYPES)]
    return [
        *(_instruction(_LOAD, _ARGUMENTS[1]), _instruction(_AND, _TYPE), *types, refusal),
        _instruction(_LOAD, _ARGUMENTS[2]),
        *chain.from_iterable(map(_allow_if, _PROTOCOLS)),
        refusal,
    ]


def _allow_if(value: int) -> _Program:
    return [_instruction(_JUMP_IF_EQUAL, value, if_false=1), _instruction(_RETURN, _ALLOW)]


def _refusal(error: int) -> bytes:
    return _instruction(_RETURN, _REFUSE | error)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Encode a struct sock_filter. if_true, if_false: instructions to skip."""
    return struct.pack("HBBI", code, if_true, if_false, value)
