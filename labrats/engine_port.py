"""The engine's port: its listening socket, and the sockets that keep the port for later engines.

Agents outlive their engine. One with an open network could otherwise listen on the port while no engine does, receive
the keys of those who call it, and prevent the next start.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from labrats.sandbox.seccomp import can_refuse_calls

_LOOPBACK: Final = ("127.0.0.1", "::1")
_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - to compare with, and to reserve
_BACKLOG: Final = 2048
_PROBE_SECONDS: Final = 1.0


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket, also on a port that executors of an earlier engine reserve. Raises OSError."""
    try:
        return _listening(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not can_refuse_calls() or _is_served(host, port):
            raise
        return _listening(host, port, reuse_port=True)


@contextmanager
def reserved(listener: socket.socket) -> Iterator[list[int]]:
    """Reserve the port of the listening socket, also on both loopback addresses: `localhost` may be either.

    Yield the descriptors of sockets that reserve it. Processes that inherit them keep the port: while one lives, only a
    socket with SO_REUSEPORT can listen there, which a sandbox refuses to agents. Where it cannot refuse that, only the
    other loopback address is reserved, and only for this process's life.
    """
    host, port = listener.getsockname()[:2]
    if can_refuse_calls():
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with ExitStack() as stack:
        sockets = []
        everywhere = _WILDCARDS if host in _WILDCARDS else ()  # a name may have an address of the other family
        for address in dict.fromkeys([host, *everywhere, *_LOOPBACK]):
            with suppress(OSError):  # no IPv6, or another program has the port
                sockets.append(stack.enter_context(_bound(address, port)))
        yield [each.fileno() for each in sockets]


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(_family(host))
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _listening(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    return socket.create_server((host, port), family=_family(host), backlog=_BACKLOG, reuse_port=reuse_port)


def _is_served(host: str, port: int) -> bool:
    """Return whether a program listens on the port, or may do so."""
    try:
        socket.create_connection((host, port), timeout=_PROBE_SECONDS).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
