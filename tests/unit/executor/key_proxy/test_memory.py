"""The memory of the key proxy, which has a limit in a pod."""

import asyncio
import re
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any, Final

import pytest

from labrats.backends.kubernetes.pod_containers import KEY_PROXY_RESOURCES
from labrats.executor.key_proxy.proxy import MOST_BUFFERED_BYTES
from labrats.executor.key_proxy.reach import MOST_VALUES
from labrats.executor.key_proxy.request_policy import MOST_BODY_BYTES, MOST_MARKS
from tests.unit.executor.key_proxy.proxies import MODEL, a_proxy, a_request, a_response, answers, status_of

PARALLEL: Final = MOST_BUFFERED_BYTES // MOST_BODY_BYTES


def largest_body(kind: str) -> bytes:
    """Return a body of almost the largest size, with as many values, or marks, as a request may have.

    A string with one character beyond the usual ones takes four bytes for each character when it is read.
    """
    start, size = b'{"model":"%s","messages":[' % MODEL.encode(), MOST_BODY_BYTES - 200
    if kind in REPEATED:
        each, marks = REPEATED[kind]
        parts = b",".join(each % number for number in range(MOST_MARKS // marks - 20))
        return _filled(
            start[: -len(b'"messages":[')] + (b'"tools":[' + parts + b"]" if kind == "tools" else parts), size
        )
    values = MOST_VALUES - 20
    if kind == "strings":
        length = size // values - 3
        each = b'"' + "😀".encode() + b"a" * (length - 4) + b'"'
        return start + b",".join([each] * values) + b"]}"
    objects = b",".join(b'{"%06d":1}' % number for number in range(values // 2))
    return _filled(start + objects + b"]", size)


def _filled(start: bytes, size: int) -> bytes:
    return start + b',"system":"' + "😀".encode() + b"a" * (size - len(start) - 20) + b'"}'


REPEATED: Final = {"fields": (b'"%06d":0', 3), "tools": (b'{"%06d":0}', 4)}
"""Parts of a body, and the number of marks of each with its comma."""


async def run_proxy(endpoint: str, network: str) -> None:
    """Run a proxy in front of a server until the end of standard input. Print its port."""
    with tempfile.TemporaryDirectory() as folder:
        config: dict[str, Any] = {"network": network, "max_tokens": 10**9}
        async with a_proxy(Path(folder), answers(b""), endpoint=endpoint, **config) as served:
            sys.stdout.write(f"{served.port}\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["strings", "objects", *REPEATED])
async def test_largest_requests_at_once_fit_into_the_limit_of_the_container(kind: str) -> None:
    arrived, answered = asyncio.Semaphore(0), asyncio.Event()

    async def model_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        arrived.release()
        await answered.wait()  # all requests are in the proxy's memory meanwhile
        found = re.search(rb"content-length: ([0-9]+)", head.lower())
        await reader.readexactly(int(found[1]) if found else 0)
        writer.write(a_response(b"{}"))
        await writer.drain()
        writer.close()

    async def send(port: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        try:
            return status_of(await reader.read())
        finally:
            writer.close()

    request = a_request(largest_body(kind))
    server = await asyncio.start_server(model_server, "127.0.0.1", 0, limit=2**16)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    network = "open" if kind in REPEATED else "none"  # with a rule, a request may have fewer values
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, url, network), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(200):
            port = int(await process.stdout.readline())
            sending = [asyncio.create_task(send(port)) for _ in range(PARALLEL)]
            for _ in sending:
                await arrived.acquire()
            answered.set()
            assert await asyncio.gather(*sending) == [200] * PARALLEL
        peak = re.search(r"VmHWM:\s+([0-9]+) kB", Path(f"/proc/{process.pid}/status").read_text())
    finally:
        process.stdin.close()
        await process.wait()
        server.close()
    assert peak
    limit = int(KEY_PROXY_RESOURCES["limits"]["memory"].removesuffix("Mi"))
    assert int(peak[1]) / 1024 < limit * 0.9


@pytest.mark.anyio
@pytest.mark.parametrize(
    "part", [b'"tools":[%s]' % b",".join([b"{}"] * (MOST_MARKS // 2)), b'"system":"%s"' % (b'\\"' * MOST_MARKS)]
)
async def test_request_that_takes_more_memory_to_read_is_refused(tmp_path: Path, part: bytes) -> None:
    async with a_proxy(tmp_path, answers(b"")) as proxy:
        response = await proxy.send(a_request(b'{"model":"%s",%s}' % (MODEL.encode(), part)))

    assert (status_of(response), proxy.heads) == (413, [])


if __name__ == "__main__":
    asyncio.run(run_proxy(sys.argv[1], sys.argv[2]))


@pytest.mark.anyio
async def test_body_in_parts_of_one_byte_takes_little_more_memory_than_in_one(tmp_path: Path) -> None:
    body = b'{"model":"%s","system":"%s"}' % (MODEL.encode(), b"a" * 20_000)
    head = a_request().partition(b"\r\n\r\n")[0].split(b"\r\n")
    kept = [line for line in head if not line.lower().startswith(b"content-length")]
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    request = b"\r\n".join([*kept, b"Transfer-Encoding: chunked", b"", chunks + b"0\r\n\r\n"])
    async with a_proxy(tmp_path, answers(a_response(b"{}"))) as proxy:
        await proxy.send(a_request())
        tracemalloc.start()
        try:
            assert status_of(await proxy.send(request)) == 200
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 600_000
