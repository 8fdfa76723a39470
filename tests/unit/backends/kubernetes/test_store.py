"""The store, with an API server that fails between two requests."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from labrats.backends.kubernetes.store import KubernetesStore
from labrats.model.agent import AiAgent
from labrats.model.core_resources import Secret
from labrats.model.errors import NotFound, RetryLater
from labrats.model.job import Job
from tests.support.builders import an_agent
from tests.unit.backends.kubernetes.test_client import a_status, serving


async def test_a_resource_whose_claim_cannot_be_checked_is_rolled_back(tmp_path: Path) -> None:
    requests: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        requests.append(request.method)
        if request.method == "GET":
            return web.Response(status=503, body=a_status(503, "the API server is starting"))
        created = json.loads(await request.read()) if request.method == "POST" else {}
        known = {"uid": "uid-1", "resourceVersion": "1", "creationTimestamp": "2030-01-01T12:00:00Z"}
        return web.json_response(created | {"metadata": created.get("metadata", {}) | known})

    async with serving(answer, tmp_path, {}) as client, KubernetesStore.open(client, "labrats") as store:
        with pytest.raises(RetryLater, match="the API server is starting"):
            await store.create(an_agent("developer"))

    assert requests == ["POST", "GET", "DELETE"]


async def test_an_update_whose_claim_cannot_be_checked_is_undone(tmp_path: Path) -> None:
    metadata = {
        "name": "developer",
        "uid": "uid-1",
        "resourceVersion": "1",
        "creationTimestamp": "2030-01-01T12:00:00Z",
    }
    stored: dict[str, Any] = {"metadata": metadata, "spec": {"triggerName": "developer"}}
    written: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path.endswith("/aiagents"):
            return web.Response(status=503, body=a_status(503, "the API server is starting"))
        if request.method == "PATCH":
            changes = {change["path"]: change["value"] for change in json.loads(await request.read())}
            stored["spec"] = changes["/spec"]
            metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
            written.append(stored["spec"]["triggerName"])
        return web.json_response(stored)

    async with serving(answer, tmp_path, {}) as client, KubernetesStore.open(client, "labrats") as store:
        agent = await store.get(AiAgent, "developer")
        with pytest.raises(RetryLater, match="the API server is starting"):
            await store.update(replace(agent, spec=replace(agent.spec, trigger_name="reviewer")))

    assert written == ["reviewer", "developer"]


@pytest.mark.parametrize(
    "name", ["", "?watch=1", "?", "#", "..", ".", "%2e%2e", "a/b", "A", "-a", "a" * 254, "a\n", "ä"]
)
async def test_a_text_that_is_no_name_is_not_found_without_a_request(tmp_path: Path, name: str) -> None:
    requests: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        requests.append(str(request.rel_url))
        return web.json_response({})

    async with serving(answer, tmp_path, {}) as client, KubernetesStore.open(client, "labrats") as store:
        with pytest.raises(NotFound):
            await store.get(Job, name)
        with pytest.raises(NotFound):
            await store.delete(Secret, name)
        assert await store.get_many(Job, [name]) == []

    assert requests == []
