"""The contract of ModelFiles (labrats/ports.py), on this machine and on a cluster."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from labrats.backends.embedded.model_files import LocalModelFiles
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.model_files import ClusterModelFiles, ModelPodSettings
from labrats.backends.kubernetes.restricted_pod import USER
from labrats.files.model_folder import ModelFolder
from labrats.model.errors import Conflict, NotFound
from labrats.model.model_files import DownloadProgress, FileOperation, FoundFile, OperationStatus, OperationType
from labrats.net.client import OutboundClient
from labrats.ports import ModelFiles, SystemClock
from tests.cluster.cluster import GATEWAY, Cluster
from tests.cluster.fixture import new_namespace
from tests.cluster.volumes import bind_volume
from tests.support.background import run_in_background
from tests.support.model_hub import OPEN, FolderHub, a_folder_hub, weights

TIMEOUT_SECONDS: Final = 120.0
"""Timeout for an operation, with the start of its pod."""

CONTENT: Final = weights(3 * 2**20)
DIGEST: Final = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(
    params=[
        "embedded",
        pytest.param(
            "kubernetes", marks=(pytest.mark.kubernetes(node=True, engine_image=True), pytest.mark.timeout(600))
        ),
    ]
)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "kubernetes":
        for slow in ("kubeconfig", "engine_image"):  # before an event loop runs
            request.getfixturevalue(slow)
    return str(request.param)


@pytest.fixture
def hub(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[FolderHub]:
    if backend == "embedded":
        with a_folder_hub(tmp_path / "hub", "127.0.0.1") as hub:
            (hub.folder / "a.gguf").write_bytes(CONTENT)
            yield hub
        return
    cluster: Cluster | None = request.getfixturevalue("cluster")
    if cluster is None:
        pytest.skip("needs the tests' own cluster, whose pods can reach this machine")
    with a_folder_hub(tmp_path / "hub", GATEWAY, cluster.inside) as hub:
        (hub.folder / "a.gguf").write_bytes(CONTENT)
        yield hub


@pytest.fixture
async def files(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> AsyncIterator[ModelFiles]:
    """An empty models folder or volume."""
    folder = tmp_path / "models"
    folder.mkdir()
    if backend == "embedded":
        local = LocalModelFiles(ModelFolder(folder, OutboundClient([OPEN]), 2**30), SystemClock())
        async with run_in_background(local.run()):
            yield local
        return
    os.chown(folder, USER, USER)
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    async with (
        ApiClient.open(request.getfixturevalue("kubeconfig")) as client,
        new_namespace(client, restricted) as namespace,
    ):
        await bind_volume(client, namespace, "models", str(folder))
        settings = ModelPodSettings(
            image=request.getfixturevalue("engine_image"),
            claim="models",
            environment={"OUTBOUND_ALLOWED_CIDRS": f"{GATEWAY}/32"},
            pod_fields={"dnsPolicy": "Default"},
        )
        on_cluster = ClusterModelFiles(client, namespace, settings)
        async with run_in_background(on_cluster.run()):
            yield on_cluster


def a_download(hub: FolderHub, **fields: Any) -> FileOperation:
    usual: dict[str, Any] = {"work": OperationType.DOWNLOAD, "provider": "qwen", "filename": "a.gguf", "sha256": DIGEST}
    return FileOperation(**usual | {"url": f"{hub.url}/a.gguf"} | fields)


A_DELETION: Final = FileOperation(work=OperationType.DELETE, provider="qwen", filename="a.gguf")


async def until_status(files: ModelFiles, *statuses: OperationStatus) -> FileOperation:
    """Wait until the latest operation has one of `statuses`, and return it."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            operation, *_ = await files.operations()
            if operation.status in statuses:
                return operation
            await asyncio.sleep(0.1)


async def until_progress(files: ModelFiles) -> DownloadProgress:
    """Wait until the progress of the latest operation is known, and return it."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            operation, *_ = await files.operations()
            if operation.progress:
                return operation.progress
            await asyncio.sleep(0.1)


async def ended(files: ModelFiles) -> FileOperation:
    return await until_status(files, OperationStatus.COMPLETED, OperationStatus.FAILED)


async def test_a_file_is_downloaded_found_and_deleted(files: ModelFiles, hub: FolderHub) -> None:
    assert list(await files.scan()) == []
    begun = await files.begin(a_download(hub))
    done = await ended(files)

    assert (done.name, done.status, done.reason) == (begun.name, OperationStatus.COMPLETED, None)
    assert done.created_at
    assert done.finished_at
    assert done.finished_at >= done.created_at
    assert list(await files.scan()) == [FoundFile(provider="qwen", filename="a.gguf", size=len(CONTENT))]
    assert (await files.log(begun.name))[-1].endswith(f"a.gguf downloaded; its SHA-256 is {DIGEST}")

    await files.begin(A_DELETION)
    done = await ended(files)
    assert (done.work, done.status) == (OperationType.DELETE, OperationStatus.COMPLETED)
    assert list(await files.scan()) == []
    known = {each.name: (each.work, each.status) for each in await files.operations()}
    assert known[begun.name] == (OperationType.DOWNLOAD, OperationStatus.COMPLETED)
    assert (await files.log(begun.name))[-1].endswith(f"a.gguf downloaded; its SHA-256 is {DIGEST}")


async def test_one_operation_at_a_time_works_on_a_file(files: ModelFiles, hub: FolderHub) -> None:
    hold = hub.folder / "a.gguf.hold"
    hold.write_text(str(2 * 2**20))
    begun = await files.begin(a_download(hub))
    assert (await until_status(files, OperationStatus.ACTIVE)).created_at == begun.created_at
    progress = await until_progress(files)
    assert progress.received_bytes <= 2 * 2**20
    assert progress.total_bytes == len(CONTENT)

    again = await files.begin(a_download(hub))
    assert again.created_at == begun.created_at
    with pytest.raises(Conflict, match=r"a\.gguf is busy with a download"):
        await files.begin(A_DELETION)
    hold.unlink()
    done = await ended(files)
    assert (done.status, done.progress) == (OperationStatus.COMPLETED, None)


async def test_a_failed_operation_has_its_reason(files: ModelFiles, hub: FolderHub) -> None:
    await files.begin(a_download(hub, sha256="0" * 64))
    failed = await ended(files)

    assert failed.status is OperationStatus.FAILED
    assert failed.reason == f"the file's SHA-256 is {DIGEST} instead of {'0' * 64}; the file was deleted"
    assert list(await files.scan()) == []


async def test_the_log_of_a_missing_operation_raises_not_found(files: ModelFiles) -> None:
    with pytest.raises(NotFound):
        await files.log("models-qwen-0123456789ab")
