"""The files of local models, downloaded by an engine that may die."""

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
    """Have the settings name the hub's file. Returns what asks for its download."""
    file = {"filename": "a.gguf", "url": hub.url("/a.gguf"), "sha256": DIGEST}
    body = {"providers": {"qwen": {"model": "qwen2.5", "files": [file]}}}
    assert (await admin.http.put("/api/config/defaults", json=body)).status_code == 200
    return {"provider": "qwen", "model": "qwen2.5", "url": file["url"]}


async def ended(admin: User) -> dict[str, Any]:
    """The one operation there is, once it has ended."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            (operation,) = (await admin.get("/api/models/jobs")).json()["jobs"]
            if operation["finishedAt"]:
                found: dict[str, Any] = operation
                return found
            await asyncio.sleep(POLL_SECONDS)


async def begin_and_hold(admin: User, hub: Hub) -> dict[str, Any]:
    """Begin the download, and return it once more than a checkpoint of it has been sent."""
    file = hub.files["/a.gguf"]
    file.hold_at = CHECKPOINT_BYTES + 4 * 2**20
    begun = await admin.post("/api/models/download", await configure(admin, hub))
    assert begun.status_code == 201, begun.text
    answer: dict[str, Any] = begun.json()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await file.holding.wait()
        while len((await admin.get(f"/api/models/jobs/{answer['name']}/logs")).json()["logs"]) < 2:
            await asyncio.sleep(POLL_SECONDS)
    return answer


async def test_a_download_goes_on_after_the_engine_was_killed(start_engine: EngineFactory, hub: Hub) -> None:
    engine: LocalEngine = start_engine(OUTBOUND_ALLOWED_CIDRS=OPEN)
    async with engine.admin() as admin:
        begun = await begin_and_hold(admin, hub)
        engine.kill()
        engine.start()
        operation = await ended(admin)
        (listed,) = (await admin.get("/api/models")).json()["models"]

    assert operation == begun | {"status": "completed", "finishedAt": operation["finishedAt"]}
    assert listed["downloaded"] is True
    assert (engine.data_dir / "models" / "qwen" / "a.gguf").read_bytes() == CONTENT
    (whole, rest) = hub.ranges()
    assert whole is None
    assert rest
    assert int(rest.removeprefix("bytes=").removesuffix("-")) >= CHECKPOINT_BYTES


async def test_a_stop_waits_for_no_download(start_engine: EngineFactory, hub: Hub) -> None:
    engine: LocalEngine = start_engine(OUTBOUND_ALLOWED_CIDRS=OPEN)
    async with engine.admin() as admin:
        await begin_and_hold(admin, hub)
        engine.restart()
        assert (await ended(admin))["status"] == "completed"


async def test_no_inner_address_is_reached_unless_it_was_opened(start_engine: EngineFactory, hub: Hub) -> None:
    engine: LocalEngine = start_engine()
    async with engine.admin() as admin:
        assert (await admin.post("/api/models/download", await configure(admin, hub))).status_code == 201
        operation = await ended(admin)

    assert operation["status"] == "failed"
    assert "OUTBOUND_ALLOWED_CIDRS" in operation["failedReason"]
    assert hub.requests == []
