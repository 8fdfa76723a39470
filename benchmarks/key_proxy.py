"""`python -m benchmarks.key_proxy [--quick]`: measure what the key proxy adds to requests of an agent.

Server, proxy and client are three processes on loopback. Each request is sent directly and through the proxy in
turn. The job has a limit of tokens and a network rule, for which the proxy examines the whole request: a small one,
and one of 250 KB, as agents send it after an hour. The paced streams, both at the same time, send an event every 2 ms,
faster than any model; the full-speed stream sends as fast as it is read.
"""

import argparse
import asyncio
import json
import multiprocessing
import socket
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from labrats.executor.key_proxy.model_server import ModelServer
from labrats.executor.key_proxy.proxy import KeyProxy
from labrats.executor.key_proxy.request_policy import RequestPolicy
from labrats.model.config import JobConfig
from labrats.model.protocol import Task

REQUESTS, QUICK_REQUESTS = 500, 5
FULL_SPEED_BYTES, QUICK_BYTES = 512 * 2**20, 2**20
PACED_EVENTS, QUICK_EVENTS = 2000, 10
PAUSE_SECONDS: Final = 0.002

LARGE_BYTES: Final = 250_000

_TOKEN: Final = "benchmark"
_LINE: Final = 'def first(values: list[int]) -> int:  # the "usual" one\n    return values[0]\n'
_MODEL: Final = "benchmark"
_EVENT: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"word"}}\n\n'
_CHUNK: Final = b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.key_proxy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only check that every measurement works")
    asyncio.run(print_table(quick=parser.parse_args().quick))


async def print_table(*, quick: bool) -> None:
    requests, size, events = (QUICK_REQUESTS, QUICK_BYTES, QUICK_EVENTS) if quick else (
        REQUESTS,
        FULL_SPEED_BYTES,
        PACED_EVENTS,
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    over, listeners = context.Event(), [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [listener.getsockname()[1] for listener in listeners]
    programs = [
        context.Process(target=run, args=(serve_model, listeners[0], 0, over)),
        context.Process(target=run, args=(serve_proxy, listeners[1], ports[0], over)),
    ]
    for program in programs:
        program.start()
    try:
        first = {each: await times_of_first_byte(ports, each, requests) for each in (0, LARGE_BYTES)}
        speeds = [size / await time_of(port, size=size, events=0) / 2**20 for port in ports]
        paced = await asyncio.gather(*(time_of(port, size=0, events=events) for port in ports))
    finally:
        over.set()
        for program in programs:
            program.join()
    print("| | direct | through the key proxy | |\n|---|---:|---:|---:|")
    for request_bytes, (direct, proxied) in first.items():
        name = f"first byte, request of {request_bytes // 1000} KB" if request_bytes else "first byte"
        times = f"{direct:.2f} ms | {proxied:.2f} ms | + {proxied - direct:.2f} ms"
        print(f"| {name}, median of {requests} | {times} |")
    print(f"| {events} events, one each 2 ms | {paced[0]:.2f} s | {paced[1]:.2f} s | {paced[1] / paced[0]:.3f} x |")
    print(f"| full speed | {speeds[0]:.0f} MiB/s | {speeds[1]:.0f} MiB/s | {speeds[1] / speeds[0]:.2f} x |")


async def times_of_first_byte(ports: Sequence[int], request_bytes: int, requests: int) -> list[float]:
    """Return the median milliseconds until the first byte of an answer, for each port."""
    times: list[list[float]] = [[] for _ in ports]
    for _ in range(requests):
        for port, found in zip(ports, times, strict=True):
            seconds = await time_of(port, size=0, events=1, until_first=True, request_bytes=request_bytes)
            found.append(1000 * seconds)
    return [median(each) for each in times]


def a_conversation(size: int) -> list[dict[str, Any]]:
    """Return the messages of an agent that has read many files, of about `size` bytes."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Fix the bug."}]
    text = _LINE * 30
    for number in range(size // (len(text) + 400)):
        use = {"type": "tool_use", "id": f"t{number}", "name": "Read", "input": {"file_path": "a.py"}}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": text}
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    return messages


async def time_of(port: int, *, size: int, events: int, until_first: bool = False, request_bytes: int = 0) -> float:
    """Return the seconds of a request on a new connection: until the first byte of its body, or until its end."""
    asked = {"size": size, "events": events}
    body = json.dumps({"model": _MODEL, "metadata": asked, "messages": a_conversation(request_bytes)}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    started = perf_counter()
    head = f"POST /v1/messages HTTP/1.1\r\nHost: a\r\nX-Api-Key: {_TOKEN}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await reader.readuntil(b"\r\n\r\n")
    while await reader.read(2**20):
        if until_first:
            break
    seconds = perf_counter() - started
    writer.close()
    return seconds


def run(
    program: "Callable[[socket.socket, int, Event], object]", listener: socket.socket, port: int, over: Event
) -> None:
    asyncio.run(program(listener, port, over))  # type: ignore[arg-type]


async def serve_model(listener: socket.socket, _: int, over: Event) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:")
                await stream(json.loads(await reader.readexactly(length))["metadata"], writer)
                if b"connection: close" in head.lower():
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(answer, sock=listener):
        await asyncio.to_thread(over.wait)


async def stream(asked: dict[str, int], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(asked["events"]):
        writer.write(_CHUNK)
        await writer.drain()
        if number:
            await asyncio.sleep(PAUSE_SECONDS)
    block = b"data: " + b"x" * (2**16 - 8) + b"\n\n"
    for _ in range(asked["size"] // len(block)):
        writer.write(b"%x\r\n%s\r\n" % (len(block), block))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def serve_proxy(listener: socket.socket, port: int, over: Event) -> None:
    config = JobConfig(provider="claude", model=_MODEL, max_tokens=10**9, network="none")
    task = Task(job_id="ir-0", attempt="ir-0-1", number=1, workspace=str(Path.cwd()), config=config)
    server = ModelServer.of("claude", f"http://127.0.0.1:{port}", "ANTHROPIC_API_KEY", "key")
    async with KeyProxy(RequestPolicy(_TOKEN, server, task), lambda _: None).serving(listener):
        await asyncio.to_thread(over.wait)


if __name__ == "__main__":
    main()
