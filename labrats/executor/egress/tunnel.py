"""A ProxyCommand of ssh: `python -m labrats.executor.egress.tunnel PROXY HOST:PORT` connects its standard streams."""

import os
import socket
import sys
import threading
from typing import Final

_CHUNK_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 4096
_SECONDS: Final = 30.0


def tunnel(proxy: str, target: str) -> int:
    """Connect standard input and output with `target` through an HTTP proxy. Return the exit status."""
    host, _, port = proxy.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_SECONDS) as connection:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n") and len(head) < _HEAD_BYTES and (byte := connection.recv(1)):
            head += byte
        if not head.startswith(b"HTTP/1.1 200 "):
            reason = head.partition(b"\r")[0][9:60].decode("latin-1")
            sys.stderr.write(f"{target} cannot be reached: {reason}\n")
            return 1
        connection.settimeout(None)
        threading.Thread(target=_send, args=(connection,), daemon=True).start()
        while data := connection.recv(_CHUNK_BYTES):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    return 0


def _send(connection: socket.socket) -> None:
    """Send standard input to its end."""
    while data := os.read(sys.stdin.fileno(), _CHUNK_BYTES):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    sys.exit(tunnel(*sys.argv[1:]))
