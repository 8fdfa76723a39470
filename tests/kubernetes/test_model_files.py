"""Downloads of models' files through the API of an engine on a cluster, whose pods are killed."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.restricted_pod import USER
from labrats.files.model_folder import CHECKPOINT_BYTES
from labrats.model.record import encode
from tests.acceptance.engine import LocalEngine, User
from tests.cluster.cluster import GATEWAY, Cluster
from tests.cluster.volumes import bind_volume
from tests.kubernetes.conftest import EngineFactory
from tests.support.model_hub import FolderHub, a_folder_hub, weights

pytestmark = [pytest.mark.kubernetes(node=True, engine_image=True), pytest.mark.timeout(600)]

PATIENCE_SECONDS: Final = 120.0
CONTENT: Final = weights(2 * CHECKPOINT_BYTES)
DIGEST: Final = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub(cluster: Cluster | None, tmp_path: Path) -> Iterator[FolderHub]:
    if cluster is None:
        pytest.skip("needs the tests' own cluster, whose pods can reach this machine")
    with a_folder_hub(tmp_path / "hub", GATEWAY, cluster.inside) as hub:
        (hub.folder / "a.gguf").write_bytes(CONTENT)
        yield hub


@pytest.fixture
async def engine(
    start_engine: EngineFactory, api_client: ApiClient, jobs_namespace: str, engine_image: str, tmp_path: Path
) -> LocalEngine:
    folder = tmp_path / "models"
    folder.mkdir()
    os.chown(folder, USER, USER)
    await bind_volume(api_client, jobs_namespace, "models", str(folder))
    return start_engine(
        LABRATS_MODELS_CLAIM="models", LABRATS_ENGINE_IMAGE=engine_image, OUTBOUND_ALLOWED_CIDRS=f"{GATEWAY}/32"
    )


@pytest.fixture
async def admin(engine: LocalEngine) -> AsyncIterator[User]:
    async with engine.admin() as admin:
        yield admin


async def operation(admin: User, *statuses: str) -> dict[str, Any]:
    """Wait until the only operation has one of `statuses`, and return it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            (found,) = (await admin.get("/api/models/jobs")).json()["jobs"]
            if found["status"] in statuses:
                answer: dict[str, Any] = found
                return answer
            await asyncio.sleep(0.2)


async def log_with(admin: User, name: str, text: str) -> list[str]:
    """Wait until the operation's log has a line with `text`, and return the log."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            lines: list[str] = (await admin.get(f"/api/models/jobs/{name}/logs")).json()["logs"]
            if any(text in line for line in lines):
                return lines
            await asyncio.sleep(0.2)


async def delete_pods(client: ApiClient, namespace: str, name: str) -> None:
    """Delete the pods of a Job, as when their node is drained."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    query = {"labelSelector": f"batch.kubernetes.io/job-name={name}"}
    for pod in [json.loads(bytes(item)) async for page in client.pages(path, query) for item in page.items]:
        await client.request("DELETE", f"{path}/{pod['metadata']['name']}", encode({"gracePeriodSeconds": 1}))


async def test_a_download_and_its_log_survive_their_pod(
    api_client: ApiClient, jobs_namespace: str, admin: User, hub: FolderHub, tmp_path: Path
) -> None:
    file = {"filename": "a.gguf", "url": f"{hub.url}/a.gguf", "sha256": DIGEST}
    settings = {"providers": {"qwen": {"model": "qwen2.5", "files": [file]}}}
    assert (await admin.http.put("/api/config/defaults", json=settings)).status_code == 200
    listed = (await admin.get("/api/models")).json()
    assert (listed["pvcName"], listed["folder"], listed["models"][0]["downloaded"]) == ("models", None, None)

    hold = hub.folder / "a.gguf.hold"
    hold.write_text(str(CHECKPOINT_BYTES + 4 * 2**20))
    request = {"provider": "qwen", "model": "qwen2.5", "url": file["url"]}
    begun = await admin.post("/api/models/download", request)
    assert begun.status_code == 201, begun.text
    name = begun.json()["name"]
    await log_with(admin, name, "MiB of 32.0 MiB")
    await delete_pods(api_client, jobs_namespace, name)

    assert (await operation(admin, "completed", "failed"))["status"] == "completed"
    assert (tmp_path / "models" / "qwen" / "a.gguf").read_bytes() == CONTENT
    hold.unlink()
    assert ", from " in "".join(await log_with(admin, name, DIGEST))

    await until_log_is_stored(api_client, jobs_namespace, name)
    await delete_pods(api_client, jobs_namespace, name)
    assert DIGEST in (await log_with(admin, name, DIGEST))[-1]
    (found,) = (await admin.post("/api/models/scan")).json()["files"]
    assert (found["filename"], found["size"], found["configured"]) == ("a.gguf", len(CONTENT), True)


async def until_log_is_stored(client: ApiClient, namespace: str, name: str) -> None:
    """Wait until the leader has stored the operation's log."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
        while "labrats.work/model-log" not in json.loads(await client.request("GET", path))["metadata"]["annotations"]:
            await asyncio.sleep(0.5)


async def test_an_engine_without_a_models_volume_answers_not_implemented(start_engine: EngineFactory) -> None:
    async with start_engine().admin() as admin:
        models, scan = await admin.get("/api/models"), await admin.post("/api/models/scan")
    assert models.status_code == 200
    assert (scan.status_code, scan.json()["code"]) == (501, "not_implemented")
