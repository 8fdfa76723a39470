"""What a reflector knows, and when: against an API server that says what a test has it say."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from labrats.backends.kubernetes.objects import JobObject
from labrats.backends.kubernetes.reflector import Collection, Reflector
from tests.unit.backends.kubernetes.test_client import serving
from tests.waiting import eventually


def a_job_object(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}


class ApiServer:
    """Lists what there is at its version, and passes on to watches what it is told to."""

    def __init__(self) -> None:
        self.version = 1
        self.objects: list[dict[str, Any]] = []
        self.closing = asyncio.Event()
        self._watches: list[web.StreamResponse] = []

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": self.objects})
        watch = web.StreamResponse()
        await watch.prepare(request)
        self._watches.append(watch)
        await self.closing.wait()
        return watch

    async def tell(self, kind: str, each: dict[str, Any]) -> None:
        await eventually(lambda: bool(self._watches))
        for watch in self._watches:
            await watch.write(json.dumps({"type": kind, "object": each}).encode() + b"\n")


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
async def reflector(server: ApiServer, tmp_path: Path) -> AsyncIterator[Reflector[JobObject]]:
    async with following(server, tmp_path) as reflector:
        await reflector.caught_up()
        yield reflector


@asynccontextmanager
async def following(server: ApiServer, folder: Path) -> AsyncIterator[Reflector[JobObject]]:
    async with serving(server.answer, folder, {}) as client:
        reflector = Reflector(client, Collection(JobObject, "/jobs", msgspec.json.Decoder(JobObject).decode))
        running = asyncio.create_task(reflector.run())
        yield reflector
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        server.closing.set()


async def test_what_was_written_to_one_object_holds_up_nobody_who_asks_for_another(
    server: ApiServer, reflector: Reflector[JobObject]
) -> None:
    reflector.expect("first", "5")
    reflector.expect("second", "7")
    first, second, all_of_them = (
        asyncio.create_task(each)
        for each in (reflector.caught_up_on("first"), reflector.caught_up_on("second"), reflector.caught_up())
    )
    await reflector.caught_up_on("third")

    await server.tell("ADDED", a_job_object("first", 5))
    await first
    assert not second.done()
    assert not all_of_them.done()
    assert not reflector.is_caught_up
    await server.tell("ADDED", a_job_object("second", 7))
    await asyncio.gather(second, all_of_them)
    assert reflector.is_caught_up


async def test_what_was_removed_holds_up_who_asks_for_it_until_it_is_gone(
    server: ApiServer, reflector: Reflector[JobObject]
) -> None:
    await server.tell("ADDED", a_job_object("first", 5))
    await eventually(lambda: reflector.get("first") is not None)
    reflector.expect_removal("first", "uid-first")
    first = asyncio.create_task(reflector.caught_up_on("first"))
    await reflector.caught_up_on("second")

    await server.tell("MODIFIED", a_job_object("first", 6))
    await eventually(lambda: (found := reflector.get("first")) is not None and found.metadata.resource_version == "6")
    assert not first.done()
    await server.tell("DELETED", a_job_object("first", 7))
    await first
    assert reflector.is_caught_up
    reflector.expect_removal("first", "uid-first")  # the answer to the removal may come after the watch
    assert reflector.is_caught_up
