"""The API of model files."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.conftest import Api, api_in_memory
from tests.support.model_hub import OPEN, File, Hub, a_hub, weights
from tests.support.waiting import eventually

CONTENT = weights(100_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_in_memory(tmp_path, outbound_allowed_cidrs=(OPEN,)) as api:
        yield api


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with a_hub(a_gguf=File(CONTENT), pickled_bin=File(b"\x80\x04")) as hub:
        yield hub


@pytest.fixture
async def configured(admin: httpx2.AsyncClient, hub: Hub) -> None:
    """Configure a file of qwen with its digest, and a pickle of vllm."""
    a_file = {"filename": "a.gguf", "url": hub.url("/a.gguf"), "sha256": DIGEST}
    a_pickle = {"filename": "pickled.bin", "url": hub.url("/pickled.bin")}
    providers = {"qwen": {"model": "qwen2.5", "files": [a_file]}, "vllm": {"files": [a_pickle]}}
    assert (await admin.put("/api/config/defaults", json={"providers": providers})).status_code == 200


async def download(admin: httpx2.AsyncClient, hub: Hub, path: str = "/a.gguf", **fields: Any) -> httpx2.Response:
    body = {"provider": "qwen", "model": "qwen2.5", "url": hub.url(path)} | fields
    return await admin.post("/api/models/download", json=body)


async def operation(admin: httpx2.AsyncClient) -> dict[str, Any]:
    (found,) = (await admin.get("/api/models/jobs")).json()["jobs"]
    answer: dict[str, Any] = found
    return answer


async def wait_until_ended(api: Api) -> None:
    """Wait until the one operation has ended."""
    assert api.services.model_file_scans
    records = Path(api.services.model_file_scans.files.place.folder or "") / ".operations"
    await eventually(lambda: any(b'"finishedAt"' in record.read_bytes() for record in records.glob("*.json")))


async def test_a_new_engine_has_no_models(api: Api, admin: httpx2.AsyncClient, tmp_path: Path) -> None:
    answer = (await admin.get("/api/models")).json()
    assert answer == {
        "models": [],
        "folder": str(tmp_path / "models"),
        "pvcName": None,
        "scannedAt": answer["scannedAt"],
    }
    assert (await admin.get("/api/models/jobs")).json() == {"jobs": []}
    assert (await admin.post("/api/models/scan")).json()["files"] == []


@pytest.mark.usefixtures("configured")
async def test_a_configured_file_is_downloaded(api: Api, admin: httpx2.AsyncClient, hub: Hub, tmp_path: Path) -> None:
    listed = (await admin.get("/api/models")).json()["models"][0]
    assert listed == {
        "provider": "qwen",
        "model": "qwen2.5",
        "filename": "a.gguf",
        "url": hub.url("/a.gguf"),
        "sha256": DIGEST,
        "downloaded": False,
        "size": None,
    }

    started = await admin.post(
        "/api/models/download", json={name: listed[name] for name in ("provider", "model", "url")}
    )

    assert started.status_code == 201, started.text
    assert started.json()["status"] == "waiting"
    await wait_until_ended(api)
    completed = await operation(admin)
    assert completed == started.json() | {"status": "completed", "finishedAt": completed["finishedAt"]}
    assert (tmp_path / "models" / "qwen" / "a.gguf").read_bytes() == CONTENT
    listed = (await admin.get("/api/models")).json()["models"][0]
    assert (listed["downloaded"], listed["size"]) == (True, len(CONTENT))
    log = (await admin.get(f"/api/models/jobs/{started.json()['name']}/logs")).json()
    assert log["name"] == started.json()["name"]
    assert log["logs"][0].endswith("Z requesting 127.0.0.1")
    assert DIGEST in log["logs"][-1]


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(
    "fields",
    [{"provider": "vllm"}, {"model": "other"}, {"url": "http://127.0.0.1/a.gguf"}, {"url": "http://169.254.169.254/"}],
)
async def test_a_file_that_is_not_configured_is_not_downloaded(
    admin: httpx2.AsyncClient, hub: Hub, fields: dict[str, Any]
) -> None:
    answer = await download(admin, hub, **fields)

    assert answer.status_code == 422
    assert [detail["field"] for detail in answer.json()["details"]] == ["url"]
    assert hub.requests == []


@pytest.mark.usefixtures("configured")
async def test_a_pickle_is_refused_with_the_reason(admin: httpx2.AsyncClient, hub: Hub) -> None:
    answer = await download(admin, hub, "/pickled.bin", provider="vllm", model="pickled.bin")

    assert answer.status_code == 422
    assert "may run code" in answer.json()["error"]
    assert hub.requests == []


@pytest.mark.usefixtures("configured")
async def test_a_second_download_of_a_file_joins_the_first(api: Api, admin: httpx2.AsyncClient, hub: Hub) -> None:
    file = hub.files["/a.gguf"]
    file.hold_at = 50_000
    first = await download(admin, hub)
    await file.holding.wait()

    again = await download(admin, hub)

    assert (again.status_code, again.json()["name"]) == (201, first.json()["name"])
    assert (await admin.delete("/api/models/qwen/a.gguf")).status_code == 409
    file.released.set()
    await wait_until_ended(api)
    assert len(hub.requests) == 1


@pytest.mark.usefixtures("configured")
async def test_a_repeated_idempotency_key_downloads_once(api: Api, admin: httpx2.AsyncClient, hub: Hub) -> None:
    admin.headers["Idempotency-Key"] = "k1"
    first = await download(admin, hub)
    await wait_until_ended(api)

    again = await download(admin, hub)

    assert again.json() == first.json()
    assert (await download(admin, hub, "/other.gguf")).status_code == 422


@pytest.mark.usefixtures("configured")
async def test_a_failed_download_shows_its_reason(api: Api, admin: httpx2.AsyncClient, hub: Hub) -> None:
    hub.files["/a.gguf"].content = weights(1000, "swapped")
    await download(admin, hub)
    await wait_until_ended(api)

    failed = await operation(admin)

    assert failed["status"] == "failed"
    assert f"instead of {DIGEST}" in failed["failedReason"]
    logs = (await admin.get(f"/api/models/jobs/{failed['name']}/logs")).json()["logs"]
    assert logs[-1].endswith(f"Z {failed['failedReason']}")
    assert (await admin.post("/api/models/scan")).json()["files"] == []


async def test_a_file_that_is_not_configured_is_found_and_deleted(
    api: Api, admin: httpx2.AsyncClient, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "gemma"
    folder.mkdir(parents=True)
    (folder / "old.gguf").write_bytes(b"GGUF")
    scan = (await admin.post("/api/models/scan")).json()
    found = {"provider": "gemma", "filename": "old.gguf", "size": 4, "complete": True, "configured": False}
    assert scan["files"] == [found]

    deletion = await admin.delete("/api/models/gemma/old.gguf")

    assert (deletion.status_code, deletion.content) == (204, b"")
    await wait_until_ended(api)
    assert [each["operation"] for each in (await admin.get("/api/models/jobs")).json()["jobs"]] == ["delete"]
    assert not (folder / "old.gguf").exists()
    assert (await admin.delete("/api/models/gemma/old.gguf")).status_code == 404


async def test_a_scan_is_cached_for_thirty_seconds(api: Api, admin: httpx2.AsyncClient, tmp_path: Path) -> None:
    async def found() -> int:
        return len((await admin.post("/api/models/scan")).json()["files"])

    assert await found() == 0
    (tmp_path / "models" / "qwen").mkdir(parents=True)
    (tmp_path / "models" / "qwen" / "a.gguf").touch()
    api.clock.step(29)
    assert await found() == 0
    api.clock.step(1)
    assert await found() == 1


@pytest.mark.parametrize("path", ["qwen/none.gguf", "claude/a.gguf", "qwen/%2e%2e%2fconfig", "qwen/.operations", "x/y"])
async def test_deletion_of_a_missing_file_is_a_404(admin: httpx2.AsyncClient, path: str) -> None:
    assert (await admin.delete(f"/api/models/{path}")).status_code == 404
    assert (await admin.get("/api/models/jobs")).json() == {"jobs": []}


@pytest.mark.parametrize("name", ["none", "..", "%2e%2e%2fqwen%2fa", "models-qwen-000000000000"])
async def test_an_unknown_operation_has_no_log(admin: httpx2.AsyncClient, name: str) -> None:
    assert (await admin.get(f"/api/models/jobs/{name}/logs")).status_code == 404


async def test_only_admins_may_use_model_files(user: httpx2.AsyncClient, hub: Hub) -> None:
    answers = [
        await user.get("/api/models"),
        await user.post("/api/models/scan"),
        await download(user, hub),
        await user.get("/api/models/jobs"),
        await user.get("/api/models/jobs/any/logs"),
        await user.delete("/api/models/qwen/a.gguf"),
    ]
    assert [answer.status_code for answer in answers] == [403] * 6


async def test_a_configured_model_without_files_is_listed_too(admin: httpx2.AsyncClient) -> None:
    providers = {
        "claude": {"model": "opus", "effort": "high"},
        "qwen": {"model": "qwen3-8b"},
        "codex": {"effort": "low"},
    }
    await admin.put("/api/config/defaults", json={"providers": providers})
    models = (await admin.get("/api/models")).json()["models"]
    assert [(each["provider"], each["model"], each["filename"]) for each in models] == [
        ("claude", "opus", None),
        ("qwen", "qwen3-8b", None),
    ]


async def test_a_deletion_does_not_replace_the_download_in_the_list(
    api: Api, admin: httpx2.AsyncClient, hub: Hub, configured: None
) -> None:
    await download(admin, hub)
    await wait_until_ended(api)
    assert (await admin.delete("/api/models/qwen/a.gguf")).status_code == 204
    jobs = (await admin.get("/api/models/jobs")).json()["jobs"]
    assert {(each["operation"], each["filename"]) for each in jobs} == {("download", "a.gguf"), ("delete", "a.gguf")}
