"""Passes connections to a socket of another network namespace on to an address in this one.

Run as a program within the cluster's namespace: `forward.py DESCRIPTOR ADDRESS PORT`. The descriptor is a listening
socket that was made outside. So the API server, or a Service, is reached from outside without joining the two networks.
"""

import asyncio
import socket
import sys
from contextlib import suppress

CHUNK_BYTES = 256 * 1024


async def serve(listener: socket.socket, address: str, port: int) -> None:
    """Forward until cancelled."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection(address, port)
            await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        writer.close()

    async with await asyncio.start_server(forward, sock=listener) as server:
        await server.serve_forever()


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Copy one direction until its end; then the other direction has nothing more to say either."""
    try:
        while chunk := await source.read(CHUNK_BYTES):
            target.write(chunk)
            await target.drain()
    finally:
        target.close()


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], int(sys.argv[3])))
