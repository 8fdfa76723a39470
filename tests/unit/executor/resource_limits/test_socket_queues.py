"""Data that waits in sockets, in memory that the kernel has for those of the whole machine."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from labrats.executor.resource_limits.socket_queues import QueueMemory, queue_memories, queued_bytes, used_up
from tests.unit.executor.attempts import DEADLINE_SECONDS

SENT_BYTES = 100_000
MORE_THAN_IS_RECEIVED = 1_000_000
"""Bytes of a connection of which most wait at the sender until the receiver reads."""

CONNECT = """
import os, socket
def connection(family=socket.AF_INET, host="127.0.0.1"):
    client = socket.socket(family)
    client.connect((host, listener.getsockname()[1]))
    return client
listener = socket.create_server(("127.0.0.1", 0))
"""
OPEN = "clients = [connection() for _ in range(4)]; accepted = [listener.accept()[0] for _ in clients]"
SEND = "for each in clients: each.sendall(bytes(100_000))"
SEND_BYTES = "for each in clients: [each.send(b'x', socket.MSG_EOR) for _ in range(10)]"
FILL = """
for each in clients:
    each.setblocking(False)
    try:
        while each.send(bytes(1 << 20)): pass
    except BlockingIOError: pass
"""
CLOSE = "for each in clients: each.close()"
IN_IPV6 = "listener = socket.create_server(('::', 0), family=socket.AF_INET6, dualstack_ipv6=True)"
DATAGRAMS = """
import socket
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.{protocol})
receivers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.{protocol}) for _ in range(40)]
for receiver in receivers:
    receiver.bind(("127.0.0.1", 0))
    for _ in range(4):
        client.sendto(bytes(20_000), receiver.getsockname())
"""
ELSEWHERE = """
import ctypes, fcntl, socket, struct
NEW_USER, NEW_NETWORK, SET_FLAGS, UP_AND_RUNNING = 0x10000000, 0x40000000, 0x8914, 0x41
assert ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK) == 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh14x", b"lo", UP_AND_RUNNING))
"""
IN_A_CHILD = """
import os
if os.fork():
    input()
    os._exit(0)
"""
WAIT = "print(flush=True); input()"


@contextmanager
def running(*script: str) -> Iterator[int]:
    """Run a program until it waits. Yield its id."""
    command = [sys.executable, "-c", "\n".join((*script, WAIT))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin
        assert program.stdout
        try:
            assert program.stdout.readline()
            yield program.pid
        finally:
            program.stdin.close()


def memory_of(protocol: str) -> QueueMemory:
    return next(each for each in queue_memories() if each.name == protocol)


@pytest.mark.parametrize(
    ("script", "least"),
    [
        ((CONNECT, OPEN, SEND), SENT_BYTES),
        ((CONNECT, IN_IPV6, OPEN, SEND), SENT_BYTES),
        ((CONNECT, OPEN.partition(";")[0], SEND, CLOSE), SENT_BYTES),
        ((CONNECT, OPEN, FILL, CLOSE), MORE_THAN_IS_RECEIVED),
        ((ELSEWHERE, CONNECT, OPEN, SEND), SENT_BYTES),
        ((ELSEWHERE, IN_A_CHILD, CONNECT, OPEN, SEND), SENT_BYTES),
    ],
    ids=["received", "IPv6", "not accepted", "not sent by closed sockets", "elsewhere", "of another process elsewhere"],
)
def test_data_that_nobody_reads_counts(script: tuple[str, ...], least: int) -> None:
    memory = replace(memory_of("TCP"), least=0)
    with running(*script) as program, running(CONNECT) as other:
        assert queued_bytes([program], memory) >= 4 * least
        assert queued_bytes([other], memory) == 0


def test_single_bytes_count_as_pages() -> None:
    """Each may take one, as the kernel does not put it into one packet with others."""
    memory = memory_of("TCP")
    with running(CONNECT, OPEN, SEND_BYTES) as program:
        assert queued_bytes([program], memory) == 4 * 10 * resource.getpagesize()
        assert queued_bytes([program], replace(memory, least=99)) == 4 * 99
    with running(CONNECT, OPEN) as program:
        assert queued_bytes([program], memory) == 0


@pytest.mark.parametrize("protocol", ["IPPROTO_UDP", "IPPROTO_UDPLITE"])
def test_datagrams_count(protocol: str) -> None:
    with running(DATAGRAMS.format(protocol=protocol)) as program, running(CONNECT) as other:
        assert queued_bytes([program], memory_of("UDP")) >= 40 * 80_000
        assert queued_bytes([other], memory_of("UDP")) == 0


@pytest.mark.parametrize(
    ("protocol", "script"),
    [("TCP", (CONNECT, OPEN, FILL)), ("UDP", (DATAGRAMS.format(protocol="IPPROTO_UDP"),))],
)
def test_used_up_memory_is_noticed(protocol: str, script: tuple[str, ...]) -> None:
    memory = replace(memory_of(protocol), most=100_000)
    with running(*script):
        assert used_up([memory, replace(memory, most=2**50)]) == [memory]


def test_another_network_namespace_shows_no_limits() -> None:
    program = (
        "from labrats.executor.resource_limits import socket_queues as s; print(s.used_up(list(s.queue_memories())))"
    )
    command = ["unshare", "--user", "--net", "--map-root-user", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True)
    assert done.stdout.strip() == "[]"
    assert [each.name for each in queue_memories()] == ["TCP", "UDP"]
