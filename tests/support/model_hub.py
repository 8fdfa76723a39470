"""A model hub on loopback: it serves files with range requests, as real hubs do, and misbehaves on request.

`python -m tests.support.model_hub ADDRESS FOLDER` serves the files of a folder on ADDRESS and prints the port. A file
NAME.hold beside the file NAME contains a number of bytes: the hub stops after them until NAME.hold is removed.
"""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.waiting import DEADLINE_SECONDS

OPEN = "127.0.0.0/8"
"""The value of OUTBOUND_ALLOWED_CIDRS with which an engine may reach a hub."""

PIECE = 2**18


def weights(size: int, seed: str = "weights") -> bytes:
    """Return the content of a GGUF file, different for each seed."""
    block = hashlib.sha256(seed.encode()).digest()
    return (b"GGUF" + block * (size // len(block) + 1))[:size]


@dataclass
class File:
    """A file of the hub and the way in which the hub serves it.

    hold_at:     number of bytes after which the hub, once, sets `holding` and waits for `released`.
    break_at:    number of bytes after which the hub, once, closes the connection.
    most_range:  number of bytes that the hub sends at most when a range is requested.
    says_length: whether answers have a Content-Length.
    endless:     whether zeros follow `content` without an end.
    """

    content: bytes = b""
    etag: str = '"v1"'
    status: str = "200 OK"
    location: str = ""
    hold_at: int | None = None
    break_at: int | None = None
    most_range: int | None = None
    says_length: bool = True
    endless: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)
    holding: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Hub:
    """A running hub. files: by path. requests: the headers of each request, and its `path`."""

    port: int = 0
    files: dict[str, File] = field(default_factory=dict)
    requests: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def ranges(self) -> list[str | None]:
        """Return the range of each request; None for a request without one."""
        return [request.get("range") for request in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            request = {"path": head[0].split()[1]} | {
                name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
            }
            self.requests.append(request)
            await self._answer(self.files[request["path"]], request, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client disconnected, as some tests do on purpose
        finally:
            writer.close()

    async def _answer(self, file: File, request: dict[str, str], writer: asyncio.StreamWriter) -> None:
        status, start, end = file.status, 0, len(file.content)
        lines = [f"ETag: {file.etag}"] if file.etag else []
        if file.location:
            lines.append(f"Location: {file.location}")
        elif "range" in request and request.get("if-range") == file.etag:
            start = int(request["range"].removeprefix("bytes=").removesuffix("-"))
            status = "206 Partial Content" if start < len(file.content) else "416 Range Not Satisfiable"
            end = min(end, start + (file.most_range or end))
            lines.append(f"Content-Range: bytes {start}-{end - 1}/{len(file.content)}")
        body = file.content[start:end]
        if file.says_length:
            lines.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())
        await self._send(file, body, writer)

    async def _send(self, file: File, body: bytes, writer: asyncio.StreamWriter) -> None:
        sent = 0
        while sent < len(body) or file.endless:
            stops = [stop for stop in (file.hold_at, file.break_at) if stop is not None]
            piece = body[sent : min([sent + PIECE, *stops])] or bytes(PIECE if file.endless else 0)
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
            if sent == file.break_at:
                file.break_at = None
                return
            if sent == file.hold_at:
                file.hold_at = None
                file.holding.set()
                async with asyncio.timeout(10 * DEADLINE_SECONDS):
                    await file.released.wait()


@asynccontextmanager
async def a_hub(**files: File) -> AsyncIterator[Hub]:
    """Run a hub during the block. files: by name, with `_` for a dot: `a_gguf` is served as /a.gguf."""
    hub = Hub(files={f"/{name.replace('_', '.')}": file for name, file in files.items()})
    server = await asyncio.start_server(hub.serve, "127.0.0.1")
    hub.port = server.sockets[0].getsockname()[1]
    try:
        yield hub
    finally:
        for file in hub.files.values():
            file.released.set()
        server.close()
        await server.wait_closed()


async def serve_folder(address: str, folder: Path) -> None:
    """Serve the files of `folder` on `address` until cancelled."""
    hub = Hub()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hub.files = {f"/{path.name}": File(path.read_bytes()) for path in folder.iterdir()}
        for hold in folder.glob("*.hold"):
            file = hub.files[f"/{hold.stem}"]
            file.hold_at = int(hold.read_text())
            tasks.create_task(release_once_removed(hold, file))
        await hub.serve(reader, writer)

    async def release_once_removed(hold: Path, file: File) -> None:
        while hold.exists():
            await asyncio.sleep(0.05)
        file.released.set()

    async with asyncio.TaskGroup() as tasks, await asyncio.start_server(serve, address) as server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()


@dataclass(frozen=True)
class FolderHub:
    """A hub in another process. folder: the files that it serves."""

    url: str
    folder: Path


@contextmanager
def a_folder_hub(
    folder: Path, address: str, inside: Callable[..., Sequence[str | Path]] = lambda *command: command
) -> Iterator[FolderHub]:
    """Run a FolderHub during the block. inside: wraps a command to run it in the network of `address`."""
    folder.mkdir()
    command = inside(sys.executable, "-m", "tests.support.model_hub", address, folder)
    hub = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
    assert hub.stdout
    try:
        yield FolderHub(f"http://{address}:{hub.stdout.readline().strip()}", folder)
    finally:
        hub.terminate()
        hub.wait(DEADLINE_SECONDS)
        hub.stdout.close()


if __name__ == "__main__":
    asyncio.run(serve_folder(sys.argv[1], Path(sys.argv[2])))
