"""A program that forwards connections from a socket of another network namespace to an address in its own.

It runs in the cluster's namespace, as `forward.py DESCRIPTOR ADDRESS PORT`. The descriptor is a listening socket that
was opened outside of it. Thus tests reach the API server or a Service without a route between the two networks.

All traffic between tests and a cluster passes through this program, so it lets the kernel move the data (splice).
"""

import os
import socket
import sys
from contextlib import suppress
from threading import Thread

CHUNK_BYTES = 64 * 1024
"""The capacity of a pipe."""


def serve(listener: socket.socket, address: str, port: int) -> None:
    """Forward until killed."""
    while True:
        outer, _ = listener.accept()
        Thread(target=forward, args=(outer, (address, port)), daemon=True).start()


def forward(outer: socket.socket, address: tuple[str, int]) -> None:
    """Connect `outer` to `address` until both directions have ended."""
    with outer, suppress(OSError), socket.create_connection(address) as inner:
        inner.settimeout(None)
        for each in (outer, inner):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = Thread(target=copy, args=(inner, outer), daemon=True)
        back.start()
        copy(outer, inner)
        back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Copy one direction until its end, then shut it down. On an error, shut down both directions."""
    outlet, inlet = os.pipe()
    try:
        while size := os.splice(source.fileno(), inlet, CHUNK_BYTES):
            while size:
                size -= os.splice(outlet, target.fileno(), size)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
    finally:
        os.close(outlet)
        os.close(inlet)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
