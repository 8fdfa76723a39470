"""The election of the leader, with an API server that is slow."""

import asyncio
from pathlib import Path

from aiohttp import web

from labrats.backends.kubernetes.client import MAX_CONCURRENT_REQUESTS
from labrats.backends.kubernetes.leader import Election
from tests.unit.backends.kubernetes.test_client import a_status, serving


async def test_slow_requests_do_not_keep_the_lease_from_being_written(tmp_path: Path) -> None:
    arrived, answered = asyncio.Semaphore(0), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.Response:
        if "leases" not in request.path:
            arrived.release()
            await answered.wait()
            return web.Response(body=b"{}")
        if request.method == "GET":
            return web.Response(status=404, body=a_status(404, name="labrats-leader", kind="leases"))
        return web.json_response(
            await request.json() | {"metadata": {"name": "labrats-leader", "resourceVersion": "1"}}
        )

    async with serving(answer, tmp_path, {}) as client, asyncio.TaskGroup() as tasks:
        slow = [tasks.create_task(client.request("POST", "/jobs")) for _ in range(2 * MAX_CONCURRENT_REQUESTS)]
        for _ in range(MAX_CONCURRENT_REQUESTS):
            await arrived.acquire()
        async with asyncio.timeout(10):
            await Election(client, "labrats", "me").try_acquire()
        assert not any(task.done() for task in slow)
        answered.set()
