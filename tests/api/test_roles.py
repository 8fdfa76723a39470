"""The routes of an engine that only drives jobs."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.conftest import Api, api_in_memory


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_in_memory(tmp_path, role="controller") as api:
        yield api


async def test_a_controller_serves_health_readiness_and_metrics(controller: Api) -> None:
    async with controller.client(None) as http:
        answers = {path: (await http.get(path)).status_code for path in ("/health", "/ready", "/metrics")}
    assert answers == {"/health": 200, "/ready": 200, "/metrics": 200}


@pytest.mark.parametrize("path", ["/api/jobs", "/api/api-keys", "/api/openapi.json", "/api/docs"])
async def test_a_controller_does_not_serve_the_api(controller: Api, path: str) -> None:
    async with controller.client("admin") as http:
        assert (await http.get(path)).status_code == 404


async def test_a_controller_does_not_watch_keys(controller: Api) -> None:
    async with controller.client(None) as http:
        assert 'labrats_watch_synced{watch="keys"}' not in (await http.get("/metrics")).text
