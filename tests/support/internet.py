"""A machine's network with an internet behind it, in which every packet that leaves the machine is seen.

The hosts of this internet answer all connections with a refusal. It needs root.
"""

import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar

MACHINE: Final = "192.0.2.2"
"""The address of the machine."""

METADATA: Final = "169.254.169.254"
TCP_HOST, UDP_HOST, RAW_HOST, HOST_V6 = "198.51.100.1", "198.51.100.2", "198.51.100.3", "2001:db8:1::1"
"""Hosts of the internet, one for each way to reach it, so that a packet shows how it was sent."""

_UPLINK: Final = "uplink"
_NEW_NETWORK: Final = 0x40000000
_ALL_PACKETS: Final = 0x0003
_FIRST_OF_HEAD: Final = 14
_IPV4, _IPV6, _ICMPV6 = 0x0800, 0x86DD, 58
_OF_THE_KERNEL: Final = range(130, 144)
"""Messages of ICMPv6 by which a kernel finds its neighbours and routers."""

_BUFFER_BYTES: Final = 16 * 2**20
_libc: Final = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


@dataclass(frozen=True)
class Uplink:
    """A network card at which packets leave a machine. They arrive at it in the network of its far end."""

    _packets: socket.socket
    _is_outgoing: bool

    def destinations(self) -> set[str]:
        """Return the addresses to which packets have left the machine since the last call."""
        found: set[str] = set()
        while True:
            try:
                packet, (_, _, kind, *_) = self._packets.recvfrom(200)
            except BlockingIOError:
                return found
            if (kind == socket.PACKET_OUTGOING) == self._is_outgoing:
                found |= _destination_of(packet)

    def close(self) -> None:
        self._packets.close()


@dataclass(frozen=True)
class Internet:
    """The internet behind the machine's network card. name_server: that of this machine, unless it runs on it."""

    name_server: str | None
    _uplink: Uplink

    def destinations(self) -> set[str]:
        """Return the addresses to which packets have left the machine since the last call."""
        return self._uplink.destinations()


def open_uplink() -> Uplink:
    """Create a network card in this network, to which packets to METADATA and the hosts of the internet go."""
    for command in (
        f"link add {_UPLINK} type veth peer name {_UPLINK}-end",
        f"link set {_UPLINK}-end up",
        f"link set {_UPLINK} up arp off",  # its other end answers nothing
        *(f"route add {host} dev {_UPLINK}" for host in (METADATA, TCP_HOST, UDP_HOST, RAW_HOST)),
    ):
        _ip(command)
    return Uplink(_a_counter(_UPLINK), _is_outgoing=True)


def remove_uplink() -> None:
    """Remove the network card of `open_uplink`."""
    _ip(f"link del {_UPLINK}")


@contextmanager
def an_internet() -> Iterator[Internet | None]:
    """Put this thread, and all threads and processes that it starts, into a network of its own with an internet.

    Yield None without root.
    """
    if os.geteuid() != 0:
        yield None
        return
    with open("/proc/thread-self/ns/net") as usual:
        try:
            _enter_new()
            with open("/proc/thread-self/ns/net") as beyond:
                _enter_new()
                name_server = _name_server()
                _connect(beyond.fileno(), name_server)
                with closing(Uplink(_in_network(beyond.fileno(), _a_counter), _is_outgoing=False)) as uplink:
                    yield Internet(name_server, uplink)
        finally:
            _enter(usual.fileno())


def _connect(beyond: int, name_server: str | None) -> None:
    """Create the network card of this network, whose other end is in the network `beyond`."""
    wan = f"/proc/self/fd/{beyond}"
    for command in (
        "link set lo up",
        f"link add eth0 type veth peer name wan netns {wan}",
        f"addr add {MACHINE}/30 dev eth0",
        "addr add 2001:db8::2/64 dev eth0 nodad",
        "link set eth0 up",
    ):
        _ip(command, beyond)
    hosts = [METADATA, TCP_HOST, UDP_HOST, RAW_HOST, HOST_V6, *([name_server] if name_server else [])]

    def connect_other_end() -> None:
        for command in (
            "link set lo up",
            "addr add 192.0.2.1/30 dev wan",
            "addr add 2001:db8::1/64 dev wan nodad",
            *(f"addr add {host} dev lo" for host in hosts),
            "link set wan up",
        ):
            _ip(command, beyond)

    _in_network(beyond, connect_other_end)
    _ip("route add default via 192.0.2.1", beyond)
    _ip("route add default via 2001:db8::1", beyond)


def _ip(command: str, *inherited: int) -> None:
    subprocess.run(["ip", *command.split()], check=True, pass_fds=inherited, timeout=30)


def _a_counter(card: str = "wan") -> socket.socket:
    """Return a socket that gets each packet at a network card."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ALL_PACKETS))
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    packets.bind((card, _ALL_PACKETS))
    return packets


def _destination_of(packet: bytes) -> set[str]:
    """Return the destination of an Ethernet frame; none for what a kernel sends on its own."""
    (protocol,) = struct.unpack_from("!H", packet, 12)
    head = packet[_FIRST_OF_HEAD:]
    if protocol == _IPV4:
        return {str(ip_address(head[16:20]))}
    if protocol != _IPV6:
        return set()
    kind = head[48] if head[6] == 0 else head[40]  # behind a hop-by-hop header, as reports of listeners have it
    return set() if head[6] in (0, _ICMPV6) and kind in _OF_THE_KERNEL else {str(ip_address(head[24:40]))}


def _name_server() -> str | None:
    """Return the first name server of this machine; None if it has none, or one at an address of loopback."""
    for line in Path("/etc/resolv.conf").read_text().splitlines():
        if line.startswith("nameserver "):
            address = line.split()[1]
            return None if ip_address(address.partition("%")[0]).is_loopback else address
    return None


def _in_network(descriptor: int, function: Callable[[], T]) -> T:
    """Call a function with this thread in another network. Sockets that it opens stay there."""
    with open("/proc/thread-self/ns/net") as own:
        _enter(descriptor)
        try:
            return function()
        finally:
            _enter(own.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _NEW_NETWORK) != 0:  # Python 3.12 has os.setns
        raise OSError(ctypes.get_errno(), "setns")


def _enter_new() -> None:
    if _libc.unshare(_NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
