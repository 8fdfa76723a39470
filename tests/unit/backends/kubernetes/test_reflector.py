"""What a reflector knows, and when: against an API server that says what a test has it say."""

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
    """Lists what there is at its version, and passes on to the watch what it is told to."""

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

    async def tell(self, kind: str, each: dict[str, Any]) -> None:
        """The watch that followed the last list."""
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


# Knowing all that was written before a moment


async def test_a_list_that_began_later_need_not_be_made_again(
    server: ApiServer, reflector: Reflector[JobObject]
) -> None:
    await reflector.fresh_since(0)
    assert server.lists == 1


async def test_what_a_watch_keeps_back_is_known_to_whoever_must_know_it(
    server: ApiServer, reflector: Reflector[JobObject]
) -> None:
    await server.tell("ADDED", a_job_object("first", 5))
    await eventually(lambda: reflector.get("first") is not None)
    server.version, server.objects = 7, [a_job_object("first", 5), a_job_object("second", 7)]
    moment = time.monotonic()
    assert not reflector.is_fresh_since(moment)

    await asyncio.gather(*(reflector.fresh_since(moment) for _ in range(3)))
    assert server.lists == 2
    assert reflector.is_fresh_since(moment)
    assert {each.name for each in reflector.objects()} == {"first", "second"}
    await server.tell("ADDED", a_job_object("third", 8))
    await eventually(lambda: reflector.get("third") is not None)


# What cannot be read

UNREADABLE = {"metadata": {"name": "odd", "uid": "uid-odd", "resourceVersion": "5", "generation": 2, "labels": []}}


async def test_what_cannot_be_read_is_heard_of_by_whoever_begins_to_hear_later(
    server: ApiServer, reflector: Reflector[JobObject]
) -> None:
    heard: list[RejectedObject] = []
    await server.tell("ADDED", UNREADABLE)
    await server.tell("ADDED", a_job_object("first", 6))
    await eventually(lambda: reflector.get("first") is not None)
    reflector.hear_of_rejected(heard.append)
    assert [(each.name, each.uid, each.generation) for each in heard] == [("odd", "uid-odd", 2)]
    assert "labels" in heard[0].reason

    await server.tell("MODIFIED", UNREADABLE)
    await eventually(lambda: len(heard) == 2)
    reflector.stop_hearing(heard.append)
    await server.tell("MODIFIED", UNREADABLE)
    await server.tell("ADDED", a_job_object("second", 7))
    await eventually(lambda: reflector.get("second") is not None)
    assert len(heard) == 2


@pytest.mark.parametrize("how", ["mended", "deleted", "gone from the list"])
async def test_nobody_hears_any_more_of_what_was_mended_or_is_gone(
    server: ApiServer, reflector: Reflector[JobObject], how: str
) -> None:
    await server.tell("ADDED", UNREADABLE)
    if how == "mended":
        await server.tell("MODIFIED", a_job_object("odd", 6))
    elif how == "deleted":
        await server.tell("DELETED", UNREADABLE)
    await server.tell("ADDED", a_job_object("last", 7))
    await eventually(lambda: reflector.get("last") is not None)
    if how == "gone from the list":
        await reflector.fresh_since(time.monotonic())
    heard: list[RejectedObject] = []
    reflector.hear_of_rejected(heard.append)
    assert heard == []
