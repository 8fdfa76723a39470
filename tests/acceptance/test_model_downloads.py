"""Downloads of model files, with engines that are killed, restarted, or not allowed to reach the hub."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from labrats.files.model_folder import CHECKPOINT_BYTES
from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, LocalEngine, User
from tests.support.model_hub import OPEN, File, Hub, a_hub, weights

CONTENT = weights(2 * CHECKPOINT_BYTES)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with a_hub(a_gguf=File(CONTENT)) as hub:
        yield hub


async def configure(admin: User, hub: Hub) -> dict[str, str]:
    """Add the hub's file to the settings. Return the body of a request to download it."""
    file = {"filename": "a.gguf", "url": hub.url("/a.gguf"), "sha256": DIGEST}
    body = {"providers": {"qwen": {"model": "qwen2.5", "files": [file]}}}
    assert (await admin.http.put("/api/config/defaults", json=body)).status_code == 200
    return {"provider": "qwen", "model": "qwen2.5", "url": file["url"]}


async def ended(admin: User) -> dict[str, Any]:
    """Wait for the end of the only download, and return its operation."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            (operation,) = (await admin.get("/api/models/jobs")).json()["jobs"]
            if operation["finishedAt"]:
                found: dict[str, Any] = operation
                return found
            await asyncio.sleep(POLL_SECONDS)


async def start_and_hold(admin: User, hub: Hub) -> dict[str, Any]:
    """Start the download, and return its operation once the hub has sent more than a checkpoint and holds the rest."""
    file = hub.files["/a.gguf"]
    file.hold_at = CHECKPOINT_BYTES + 4 * 2**20
    answer = await admin.post("/api/models/download", await configure(admin, hub))
    assert answer.status_code == 201, answer.text
    operation: dict[str, Any] = answer.json()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await file.holding.wait()
        while len((await admin.get(f"/api/models/jobs/{operation['name']}/logs")).json()["logs"]) < 3:
            await asyncio.sleep(POLL_SECONDS)
    return operation


async def test_download_resumes_after_the_engine_was_killed(start_engine: EngineFactory, hub: Hub) -> None:
    engine: LocalEngine = start_engine(OUTBOUND_ALLOWED_CIDRS=OPEN)
    async with engine.admin() as admin:
        started = await start_and_hold(admin, hub)
        (active,) = (await admin.get("/api/models/jobs")).json()["jobs"]
        engine.kill()
        engine.start()
        operation = await ended(admin)
        (listed,) = (await admin.get("/api/models")).json()["models"]

    assert operation == started | {"status": "completed", "finishedAt": operation["finishedAt"]}
    assert CHECKPOINT_BYTES <= active["receivedBytes"] < active["totalBytes"] == len(CONTENT)
    assert listed["downloaded"] is True
    assert (engine.data_dir / "models" / "qwen" / "a.gguf").read_bytes() == CONTENT
    (first, second) = hub.ranges()
    assert first is None
    assert second
    assert int(second.removeprefix("bytes=").removesuffix("-")) >= CHECKPOINT_BYTES


async def test_engine_stops_without_waiting_for_a_download(start_engine: EngineFactory, hub: Hub) -> None:
    engine: LocalEngine = start_engine(OUTBOUND_ALLOWED_CIDRS=OPEN)
    async with engine.admin() as admin:
        await start_and_hold(admin, hub)
        engine.restart()
        assert (await ended(admin))["status"] == "completed"


async def test_download_from_an_internal_address_fails_unless_it_is_allowed(
    start_engine: EngineFactory, hub: Hub
) -> None:
    engine: LocalEngine = start_engine()
    async with engine.admin() as admin:
        assert (await admin.post("/api/models/download", await configure(admin, hub))).status_code == 201
        operation = await ended(admin)

    assert operation["status"] == "failed"
    assert "OUTBOUND_ALLOWED_CIDRS" in operation["failedReason"]
    assert hub.requests == []
