"""Reports of invalid objects, each of which changes the object and so comes back by the watch."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from labrats.backends.kubernetes import invalid_objects
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.codec import resource_type
from labrats.backends.kubernetes.events import EventRecorder
from labrats.backends.kubernetes.invalid_objects import InvalidObjectReporter
from labrats.backends.kubernetes.reflector import RejectedObject
from labrats.model.job import Job
from labrats.ports import SystemClock
from tests.unit.backends.kubernetes.test_client import serving


def an_invalid_job(name: str, reason: str = "it is nested too deep") -> RejectedObject:
    return RejectedObject(name, f"uid-of-{name}", 1, reason)


def a_reporter(client: ApiClient) -> InvalidObjectReporter:
    clock = SystemClock()
    return InvalidObjectReporter(client, "labrats", EventRecorder(client, "labrats", clock), clock)


async def test_too_many_invalid_objects_are_each_reported_once_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalid_objects, "MAX_REPORTED", 3)
    reported: asyncio.Queue[str] = asyncio.Queue()

    async def answer(request: web.BaseRequest) -> web.Response:
        name = request.path.split("/")[-2]
        reported.put_nowait(name)
        reporter.report(resource_type(Job), an_invalid_job(name))  # the watch reports the change
        return web.Response(body=b"{}")

    async with serving(answer, tmp_path, {}) as client:
        reporter = a_reporter(client)
        for number in range(5):
            reporter.report(resource_type(Job), an_invalid_job(f"job-{number}"))
        running = asyncio.create_task(reporter.run())
        assert [await reported.get() for _ in range(3)] == ["job-0", "job-1", "job-2"]
        for rejected in (an_invalid_job("job-3"), an_invalid_job("job-2", "another reason")):
            reporter.report(resource_type(Job), rejected)
        assert await reported.get() == "job-2"
        running.cancel()
        await asyncio.wait([running])
