"""Passes connections to a socket of another network namespace on to an address in this one.

Run as a program within the cluster's namespace: `forward.py DESCRIPTOR ADDRESS PORT`. The descriptor is a listening
socket that was made outside. So the API server, or a Service, is reached from outside without joining the two networks.

All that tests say to a cluster comes by here, so the kernel moves it: it is never in this process's memory.
"""

import os
import socket
import sys
from contextlib import suppress
from threading import Thread

CHUNK_BYTES = 64 * 1024
"""What a pipe holds."""


def serve(listener: socket.socket, address: str, port: int) -> None:
    """Forward until killed."""
    while True:
        outer, _ = listener.accept()
        Thread(target=forward, args=(outer, (address, port)), daemon=True).start()


def forward(outer: socket.socket, address: tuple[str, int]) -> None:
    """Join two connections until both sides have said all."""
    with outer, suppress(OSError), socket.create_connection(address) as inner:
        inner.settimeout(None)
        for each in (outer, inner):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = Thread(target=copy, args=(inner, outer), daemon=True)
        back.start()
        copy(outer, inner)
        back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Copy one direction until its end, and pass that on. When the connection broke, both directions end."""
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
