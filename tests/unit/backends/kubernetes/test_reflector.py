"""The copy of a reflector, against an API server that sends what the test tells it to send."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from labrats.backends.kubernetes.batch_objects import JobObject
from labrats.backends.kubernetes.client import REFUSED_DELAY_SECONDS
from labrats.backends.kubernetes.reflector import (
    ListComplete,
    ObjectChanged,
    ObjectCollection,
    ObjectDeleted,
    Reflector,
    RejectedObject,
)
from tests.support.waiting import DEADLINE_SECONDS, eventually
from tests.unit.backends.kubernetes.test_client import serving


def a_job_object(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}


class ApiServer:
    """An API server that lists `objects` at `version`, and sends events to the watch.

    The first page of a list ends after `first_page` objects. The second waits for `continued`, and then answers with
    the status `second_page`.
    """

    def __init__(self) -> None:
        self.version = 1
        self.objects: list[dict[str, Any]] = []
        self.first_page: int | None = None
        self.continued = asyncio.Event()
        self.second_page = 200
        self.lists = 0
        self.closing = asyncio.Event()
        self._watches: list[web.StreamResponse] = []

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        metadata = {"resourceVersion": str(self.version)}
        if "continue" in request.query:
            await self.continued.wait()
            status, self.second_page = self.second_page, 200
            return web.json_response({"metadata": metadata, "items": self.objects[self.first_page :]}, status=status)
        if "watch" not in request.query:
            self.lists += 1
            more = {} if self.first_page is None else {"continue": "more"}
            return web.json_response({"metadata": metadata | more, "items": self.objects[: self.first_page]})
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
async def following(
    server: ApiServer, folder: Path, is_settled: Callable[[JobObject], bool] = lambda _: False
) -> AsyncIterator[Reflector[JobObject]]:
    read = msgspec.json.Decoder(JobObject).decode
    async with asyncio.timeout(DEADLINE_SECONDS), serving(server.answer, folder, {}) as client:
        reflector = Reflector(client, ObjectCollection(JobObject, "/jobs", read, is_settled=is_settled))
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
    assert reflector.get("first")
    assert reflector.get("second")
    await server.send("ADDED", a_job_object("third", 8))
    await eventually(lambda: reflector.get("third") is not None)


# Subscribers


@asynccontextmanager
async def subscribed(reflector: Reflector[JobObject], **options: bool) -> AsyncIterator[list[str]]:
    """Yield a growing list of what a subscriber gets: `first 5` for an object and its version, `-first 6`, `listed`."""
    seen: list[str] = []

    async def subscribe() -> None:
        async for change in reflector.changes(**options):
            match change:
                case ObjectChanged(each):
                    seen.append(f"{each.name} {each.metadata.resource_version}")
                case ObjectDeleted(each):
                    seen.append(f"-{each.name} {each.metadata.resource_version}")
                case ListComplete():
                    seen.append("listed")

    task = asyncio.create_task(subscribe())
    yield seen
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_subscriber_gets_objects_as_they_arrive(server: ApiServer, tmp_path: Path) -> None:
    server.objects, server.first_page = [a_job_object("first", 5), a_job_object("second", 6)], 1
    async with (
        following(server, tmp_path) as reflector,
        subscribed(reflector, as_they_arrive=True) as early,
        subscribed(reflector) as late,
    ):
        await eventually(lambda: early == ["first 5"])
        assert late == []
        assert not reflector.is_caught_up
        server.continued.set()
        await eventually(lambda: late[-1:] == early[-1:] == ["listed"])
        assert early == ["first 5", "second 6", "listed"]
        assert sorted(late[:-1]) == ["first 5", "second 6"]

        await server.send("MODIFIED", a_job_object("first", 7))
        await server.send("DELETED", a_job_object("second", 8))
        await eventually(lambda: late[-2:] == early[-2:] == ["first 7", "-second 8"])


async def test_a_first_list_that_is_interrupted_starts_again(server: ApiServer, tmp_path: Path) -> None:
    first, second, third = (a_job_object(name, version) for name, version in (("a", 5), ("b", 6), ("c", 7)))
    server.objects, server.first_page, server.second_page = [first, second, third], 2, 410
    async with following(server, tmp_path) as reflector, subscribed(reflector, as_they_arrive=True) as seen:
        await eventually(lambda: sorted(seen) == ["a 5", "b 6"])
        server.objects = [a_job_object("a", 8), third]
        server.continued.set()
        await eventually(lambda: seen[-1:] == ["listed"])
        assert sorted(seen[2:-1]) == ["-b 6", "a 8", "c 7"]
        assert [reflector.get(name) is not None for name in ("a", "b", "c")] == [True, False, True]
        assert server.lists == 2


async def test_a_list_that_is_refused_is_soon_tried_again(server: ApiServer, tmp_path: Path) -> None:
    """An API server that has just started does not know its roles yet, and refuses with 403."""
    server.objects, server.first_page, server.second_page = [a_job_object("a", 5)], 0, 403
    server.continued.set()
    async with following(server, tmp_path) as reflector:
        await asyncio.wait_for(reflector.caught_up(), REFUSED_DELAY_SECONDS / 2)
    assert server.lists == 2


async def test_settled_objects_come_only_when_they_change(server: ApiServer, tmp_path: Path) -> None:
    server.objects = [a_job_object(name, 5) for name in ("settled", "other")]
    async with (
        following(server, tmp_path, is_settled=lambda each: each.name == "settled") as reflector,
        subscribed(reflector, unsettled_only=True) as seen,
    ):
        await eventually(lambda: seen == ["other 5", "listed"])
        await server.send("MODIFIED", a_job_object("settled", 6))
        await eventually(lambda: seen[2:] == ["settled 6"])
        copies = reflector.get("settled"), reflector.get("other")
        assert [each and each.metadata.uid for each in copies] == ["uid-settled", "uid-other"]


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
