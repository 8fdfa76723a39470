"""Uploads: files on their way from a caller to an agent's workspace."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine, User
from tests.support.pdfs import a_manual, encrypted

HEAD = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n\r\n'
FOOT = b"\r\n--xyz--\r\n"
FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}
MIB = 2**20


async def a_large_file(mib: int) -> AsyncIterator[bytes]:
    yield HEAD
    for number in range(mib):
        yield bytes([number % 256]) * MIB
    yield FOOT


def sha256_of(mib: int) -> str:
    digest = hashlib.sha256()
    for number in range(mib):
        digest.update(bytes([number % 256]) * MIB)
    return digest.hexdigest()


def peak_memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


async def test_upload_reaches_the_workspace_of_the_job_that_names_it(engine: LocalEngine, user: User) -> None:
    content = bytes(range(256)) * 5000
    answer = await user.http.post("/api/workspace-uploads", files={"file": ("data ü.bin", content)})
    assert answer.status_code == 201, answer.text

    detail = await user.run(workspaceUploads=[{"id": answer.json()["id"], "name": "data ü.bin"}])

    assert detail["status"] == "completed"
    assert (engine.workspace(detail["id"]) / "data ü.bin").read_bytes() == content


async def test_job_can_be_retried_after_its_upload_was_deleted(engine: LocalEngine, user: User, admin: User) -> None:
    uploaded = (await user.http.post("/api/workspace-uploads", files={"file": ("a.txt", b"hello")})).json()
    named = [{"id": uploaded["id"], "name": "a.txt"}]
    job_id = await user.submit({"sleepMs": 300}, {"fail": "once"}, workspaceUploads=named)
    assert (await admin.http.delete(f"/api/workspace-uploads/{uploaded['id']}")).status_code == 204
    await user.wait(job_id)

    await user.post(f"/api/jobs/{job_id}/retry")

    detail = await user.wait(job_id, "failed")
    assert (engine.workspace(detail["id"], detail["attempts"]) / "a.txt").read_bytes() == b"hello"


async def test_upload_survives_a_crash(start_program: EngineFactory) -> None:
    engine = start_program()
    async with engine.user() as user:
        uploaded = (await user.http.post("/api/workspace-uploads", files={"file": ("a.txt", b"hello")})).json()
        engine.kill()
        engine.start()
        raw = await user.http.get(f"/api/workspace-uploads/{uploaded['id']}/a.txt/raw")
        assert (raw.status_code, raw.content) == (200, b"hello")


async def test_twenty_concurrent_large_uploads_use_bounded_memory(start_program: EngineFactory) -> None:
    engine = start_program()
    async with engine.user() as user:
        await user.http.post("/api/workspace-uploads", content=a_large_file(1), headers=FORM)
        before = peak_memory_kib(engine.pid)

        async def send() -> httpx2.Response:
            return await user.http.post("/api/workspace-uploads", content=a_large_file(20), headers=FORM, timeout=120)

        answers = await asyncio.gather(*(send() for _ in range(20)))

        assert {(answer.status_code, answer.json()["sha256"]) for answer in answers} == {(201, sha256_of(20))}
        assert peak_memory_kib(engine.pid) - before < 20 * 16 * 1024 // 4


async def test_pdf_sections_pipeline_runs_the_agent_once_for_each_section(user: User) -> None:
    uploaded = (await user.http.post("/api/workspace-uploads", files={"file": ("manual.pdf", a_manual())})).json()

    detail = await user.run(
        {"usage": {"inputTokens": 10}},
        {"result": "Said."},
        pipeline={"type": "pdf-sections"},
        workspaceUploads=[{"id": uploaded["id"], "name": "manual.pdf"}],
    )

    assert detail["status"] == "completed", detail
    result = detail["result"]
    assert [(each["title"], each["output"]) for each in result["sections"]] == [
        ("A manual", "Said."),
        ("One", "Said."),
        ("One, closer", "Said."),
        ("Two", "Said."),
    ]
    assert detail["usage"]["inputTokens"] == 40
    assert "section 4 of 4: Two (page 3)" in await user.log_lines(detail["id"])


async def test_unreadable_pdf_fails_the_job_with_the_reason(user: User) -> None:
    uploaded = (await user.http.post("/api/workspace-uploads", files={"file": ("a.pdf", encrypted())})).json()
    named = [{"id": uploaded["id"], "name": "a.pdf"}]

    detail = await user.run({"result": 1}, pipeline={"type": "pdf-sections"}, workspaceUploads=named)

    assert (detail["status"], detail["failedCode"]) == ("failed", "workspace")
    assert detail["failedReason"] == "the PDF cannot be read: it is encrypted; upload a copy without a password"
