"""The copy of a reflector, against an API server that sends what the test tells it to send."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from labrats.backends.kubernetes.batch_objects import JobObject
from labrats.backends.kubernetes.reflector import ObjectCollection, Reflector, RejectedObject
from tests.support.waiting import DEADLINE_SECONDS, eventually
from tests.unit.backends.kubernetes.test_client import serving


def a_job_object(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}


class ApiServer:
    """An API server that lists `objects` at `version`, and sends events to the watch."""

    def __init__(self) -> None:
        self.version = 1
        self.objects: list[dict[str, Any]] = []
        self.lists = 0
        self.closing = asyncio.Event()
        self._watches: list[web.StreamResponse] = []

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": self.objects})
        watch = web.StreamResponse()
        await watch.prepare(request)
        self._watches.append(watch)
        await self.closing.wait()
        return watch

    async def send(self, kind: str, each: dict[str, Any]) -> None:
        """Send an event to the watch that followed the last list."""
        await eventually(lambda: len(self._watches) == self.lists)
        await self._watches[-1].write(json.dumps({"type": kind, "object": each}).encode() + b"\n")


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
    async with asyncio.timeout(DEADLINE_SECONDS), serving(server.answer, folder, {}) as client:
        reflector = Reflector(client, ObjectCollection(JobObject, "/jobs", msgspec.json.Decoder(JobObject).decode))
        running = asyncio.create_task(reflector.run())
        yield reflector
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        server.closing.set()


async def test_a_write_delays_only_callers_that_wait_for_its_object(
    server: ApiServer, reflector: Reflector[JobObject]
) -> None:
    reflector.expect_version("first", "5")
    reflector.expect_version("second", "7")
    first, second, all_of_them = (
        asyncio.create_task(each)
        for each in (reflector.caught_up_on("first"), reflector.caught_up_on("second"), reflector.caught_up())
    )
    await reflector.caught_up_on("third")

    await server.send("ADDED", a_job_object("first", 5))
    await first
    assert not second.done()
    assert not all_of_them.done()
    assert not reflector.is_caught_up
    await server.send("ADDED", a_job_object("second", 7))
    await asyncio.gather(second, all_of_them)
    assert reflector.is_caught_up


async def test_a_removal_delays_callers_until_the_watch_reports_it(
    server: ApiServer, reflector: Reflector[JobObject]
) -> None:
    await server.send("ADDED", a_job_object("first", 5))
    await eventually(lambda: reflector.get("first") is not None)
    reflector.expect_removal("first", "uid-first")
    first = asyncio.create_task(reflector.caught_up_on("first"))
    await reflector.caught_up_on("second")

    await server.send("MODIFIED", a_job_object("first", 6))
    await eventually(lambda: (found := reflector.get("first")) is not None and found.metadata.resource_version == "6")
    assert not first.done()
    await server.send("DELETED", a_job_object("first", 7))
    await first
    assert reflector.is_caught_up
    reflector.expect_removal("first", "uid-first")  # the answer to the removal may come after the watch
    assert reflector.is_caught_up


# Freshness


async def test_a_list_that_is_fresh_enough_is_not_repeated(server: ApiServer, reflector: Reflector[JobObject]) -> None:
    await reflector.fresh_since(0)
    assert server.lists == 1


async def test_fresh_since_finds_objects_that_a_lagging_watch_has_not_reported(
    server: ApiServer, reflector: Reflector[JobObject]
) -> None:
    await server.send("ADDED", a_job_object("first", 5))
    await eventually(lambda: reflector.get("first") is not None)
    server.version, server.objects = 7, [a_job_object("first", 5), a_job_object("second", 7)]
    moment = time.monotonic()
    assert not reflector.is_fresh_since(moment)

    await asyncio.gather(*(reflector.fresh_since(moment) for _ in range(3)))
    assert server.lists == 2
    assert reflector.is_fresh_since(moment)
    assert {each.name for each in reflector.objects()} == {"first", "second"}
    await server.send("ADDED", a_job_object("third", 8))
    await eventually(lambda: reflector.get("third") is not None)


# Invalid objects

UNREADABLE = {"metadata": {"name": "odd", "uid": "uid-odd", "resourceVersion": "5", "generation": 2, "labels": []}}


async def test_a_rejection_listener_receives_earlier_and_later_invalid_objects(
    server: ApiServer, reflector: Reflector[JobObject]
) -> None:
    rejected: list[RejectedObject] = []
    await server.send("ADDED", UNREADABLE)
    await server.send("ADDED", a_job_object("first", 6))
    await eventually(lambda: reflector.get("first") is not None)
    reflector.add_rejection_listener(rejected.append)
    assert [(each.name, each.uid, each.generation) for each in rejected] == [("odd", "uid-odd", 2)]
    assert "labels" in rejected[0].reason

    await server.send("MODIFIED", UNREADABLE)
    await eventually(lambda: len(rejected) == 2)
    reflector.remove_rejection_listener(rejected.append)
    await server.send("MODIFIED", UNREADABLE)
    await server.send("ADDED", a_job_object("second", 7))
    await eventually(lambda: reflector.get("second") is not None)
    assert len(rejected) == 2


@pytest.mark.parametrize("how", ["fixed", "deleted", "gone from the list"])
async def test_an_object_that_was_fixed_or_deleted_is_no_longer_reported(
    server: ApiServer, reflector: Reflector[JobObject], how: str
) -> None:
    await server.send("ADDED", UNREADABLE)
    if how == "fixed":
        await server.send("MODIFIED", a_job_object("odd", 6))
    elif how == "deleted":
        await server.send("DELETED", UNREADABLE)
    await server.send("ADDED", a_job_object("last", 7))
    await eventually(lambda: reflector.get("last") is not None)
    if how == "gone from the list":
        await reflector.fresh_since(time.monotonic())
    rejected: list[RejectedObject] = []
    reflector.add_rejection_listener(rejected.append)
    assert rejected == []
