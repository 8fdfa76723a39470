"""Uploads over HTTP: validation, bounds and ownership. F4 and F5 of the reliability page."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labrats.api.http.body_bounds import UPLOAD_BYTES, bounds_of
from labrats.api.routes import upload_stream
from labrats.api.routes.workspace_uploads import check_file_name
from labrats.model.errors import Invalid
from labrats.model.job import Job, Pipeline
from tests.api.conftest import Api, a_submission
from tests.support.waiting import DEADLINE_SECONDS

WORKSPACE, PDFS = "/api/workspace-uploads", "/api/uploads"
A_PDF = b"%PDF-1.4\n% a test\n"

ODD_NAMES = [
    *[
        "",
        ".",
        "..",
        "/",
        "a/b",
        "/etc/passwd",
        "../a",
        "a/../b",
        "..\\a",
        "a\\b",
        "a\0b",
        "a\nb",
        "a\rb",
        "\x7f",
    ],
    *["\u202egpj.exe", "invisible\u200b.txt", "a\u2028b", "\u00adsoft"],
    *[".git", ".GIT", ".labrats-upload.json", "x" * 201, "ä" * 150],
]
GOOD_NAMES = [
    *["a", "a b.txt", "...", "..a", "-rf", "~", "$HOME", "%2e%2e%2f", "．．／a", "ü📄.csv", ".env", "con", "x" * 200],
    *["{{ payload }}", "<script>", "'; drop table", "a:b", "a?b", "a*b", "a|b"],
]


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def form(name: str, content: bytes = b"hello", field: str = "file") -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of a form with any file name that has no quote."""
    disposition = f'Content-Disposition: form-data; name="{field}"; filename="{name}"'.encode()
    body = b"--xyz\r\n" + disposition + b"\r\nContent-Type: text/plain\r\n\r\n" + content + b"\r\n--xyz--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=xyz"}


async def send(client: httpx2.AsyncClient, path: str, body: bytes, headers: dict[str, str]) -> httpx2.Response:
    return await client.post(path, content=body, headers=headers)


async def upload(client: httpx2.AsyncClient, name: str = "a.txt", content: bytes = b"hello") -> dict[str, Any]:
    answer = await client.post(WORKSPACE, files={"file": (name, content)})
    assert answer.status_code == 201, answer.text
    uploaded: dict[str, Any] = answer.json()
    return uploaded


# Workspace uploads


async def test_an_upload_is_downloaded_unchanged(user: httpx2.AsyncClient) -> None:
    content = bytes(range(256)) * 1000

    uploaded = await upload(user, "all bytes.bin", content)

    assert uploaded == {
        "id": uploaded["id"],
        "name": "all bytes.bin",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    raw = await user.get(f"{WORKSPACE}/{uploaded['id']}/all bytes.bin/raw")
    assert (raw.status_code, raw.content) == (200, content)


async def test_a_download_is_an_attachment(user: httpx2.AsyncClient) -> None:
    uploaded = await upload(user, "page ü.html", b"<script>alert(1)</script>")

    raw = await user.get(f"{WORKSPACE}/{uploaded['id']}/page ü.html/raw")

    assert raw.headers["Content-Type"] == "application/octet-stream"
    assert raw.headers["Content-Disposition"] == "attachment; filename*=utf-8''page%20%C3%BC.html"
    assert raw.headers["X-Content-Type-Options"] == "nosniff"
    assert raw.headers["Content-Security-Policy"] == "sandbox"


async def test_a_range_of_a_file_can_be_downloaded(user: httpx2.AsyncClient) -> None:
    uploaded = await upload(user, "a.txt", b"0123456789")

    raw = await user.get(f"{WORKSPACE}/{uploaded['id']}/a.txt/raw", headers={"Range": "bytes=2-4"})

    assert (raw.status_code, raw.content) == (206, b"234")


@pytest.mark.parametrize("asked", ["bytes=a-b", "bytes=4-2", "lines=1-2", "bytes", "bytes=", "2-4"])
async def test_an_invalid_range_returns_the_whole_file(user: httpx2.AsyncClient, asked: str) -> None:
    uploaded = await upload(user, "a.txt", b"0123456789")

    raw = await user.get(f"{WORKSPACE}/{uploaded['id']}/a.txt/raw", headers={"Range": asked})

    assert (raw.status_code, raw.content) == (200, b"0123456789")


async def test_a_range_beyond_the_end_is_answered_416(user: httpx2.AsyncClient) -> None:
    uploaded = await upload(user, "a.txt", b"0123456789")

    raw = await user.get(f"{WORKSPACE}/{uploaded['id']}/a.txt/raw", headers={"Range": "bytes=10-"})

    assert (raw.status_code, raw.headers["Content-Range"]) == (416, "bytes */10")
    assert raw.json() == {
        "error": "the file ends before this range; it has 10 bytes",
        "code": "range_not_satisfiable",
    }


async def test_a_download_needs_the_exact_name(user: httpx2.AsyncClient) -> None:
    uploaded = await upload(user, "a.txt")

    for name in ("b.txt", ".labrats-upload.json", "A.txt"):
        assert (await user.get(f"{WORKSPACE}/{uploaded['id']}/{name}/raw")).status_code == 404


async def test_an_upload_is_visible_to_its_owner_and_admins_only(api: Api, user: httpx2.AsyncClient) -> None:
    uploaded = await upload(user, "a.txt")
    path = f"{WORKSPACE}/{uploaded['id']}/a.txt/raw"

    async with api.client("other") as other, api.client("admin") as admin:
        assert (await other.get(path)).status_code == 403
        assert (await admin.get(path)).status_code == 200
        assert (await other.get(WORKSPACE)).status_code == 403
        list_of_all = (await admin.get(WORKSPACE)).json()
        (listed,) = list_of_all["files"]
        assert list_of_all["uploads"] == [listed]
        assert listed == uploaded | {"owner": listed["owner"], "createdAt": listed["createdAt"]}
        assert (await admin.delete(f"{WORKSPACE}/{uploaded['id']}")).status_code == 204
        assert (await admin.delete(f"{WORKSPACE}/{uploaded['id']}")).status_code == 404
    assert (await user.get(path)).status_code == 404


async def test_the_same_key_and_file_is_stored_once(
    api: Api, user: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    async def send_again(client: httpx2.AsyncClient, content: bytes) -> httpx2.Response:
        return await client.post(WORKSPACE, files={"file": ("a.txt", content)}, headers={"Idempotency-Key": "k1"})

    first, again = await send_again(user, b"one"), await send_again(user, b"one")
    assert (first.status_code, again.status_code, first.json()) == (201, 201, again.json())
    assert (await send_again(user, b"two")).status_code == 422
    assert (await send_again(admin, b"two")).json()["id"] != first.json()["id"]
    assert len(await api.services.workspace_uploads.list_all()) == 2


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_an_unsafe_file_name_is_refused(api: Api, tmp_path: Path, user: httpx2.AsyncClient, name: str) -> None:
    answer = await send(user, WORKSPACE, *form(name))

    assert answer.status_code in (400, 422), answer.text
    assert content_of(tmp_path) == {}


@pytest.mark.parametrize("name", GOOD_NAMES)
async def test_a_safe_file_name_is_used_unchanged(tmp_path: Path, user: httpx2.AsyncClient, name: str) -> None:
    answer = await send(user, WORKSPACE, *form(name))

    assert answer.status_code == 201, answer.text
    uploaded = answer.json()
    assert uploaded["name"] == name
    folder = f"uploads/{uploaded['id']}"
    assert set(content_of(tmp_path)) == {f"{folder}/{name}", f"{folder}/.labrats-upload.json"}


@given(st.text(max_size=40))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_an_accepted_name_is_one_path_component(name: str) -> None:
    """An accepted name cannot refer to another folder."""
    try:
        check_file_name(name)
    except Invalid:
        return
    assert Path("root", name).parent == Path("root")
    assert Path("root", name).name == name
    assert not set(name) & {"/", "\\", "\0", "\n", "\r"}


# Invalid forms

NO_FORMS: dict[str, tuple[bytes, str, int]] = {
    "nothing": (b"", "multipart/form-data; boundary=xyz", 400),
    "JSON": (b"{}", "application/json", 415),
    "no boundary": (b"", "multipart/form-data", 415),
    "an empty boundary": (b"", "multipart/form-data; boundary=", 415),
    "no content type": (b"--xyz--\r\n", "", 415),
    "urlencoded": (b"file=a", "application/x-www-form-urlencoded", 415),
    "cut off": (form("a")[0][:-12], "multipart/form-data; boundary=xyz", 400),
    "no part": (b"--xyz--\r\n", "multipart/form-data; boundary=xyz", 422),
    "another field": (form("a", field="data")[0], "multipart/form-data; boundary=xyz", 422),
    "a field that is no file": (
        b'--xyz\r\nContent-Disposition: form-data; name="file"\r\n\r\nhello\r\n--xyz--\r\n',
        "multipart/form-data; boundary=xyz",
        422,
    ),
    "two files": (form("a")[0].replace(b"--xyz--\r\n", b"") + form("b")[0], "multipart/form-data; boundary=xyz", 422),
    "a name that is no UTF-8": (form("a")[0].replace(b'"a"', b'"\xff"'), "multipart/form-data; boundary=xyz", 422),
    "endless headers": (
        b"--xyz\r\n" + b"X-Header: " + b"a" * 100_000 + b"\r\n\r\n", "multipart/form-data; boundary=xyz", 400
    ),
    "another boundary": (form("a")[0], "multipart/form-data; boundary=abc", 400),
}  # fmt: skip


@pytest.mark.parametrize("path", [WORKSPACE, PDFS])
@pytest.mark.parametrize("case", NO_FORMS)
async def test_a_body_other_than_a_form_with_one_file_is_refused(
    api: Api, tmp_path: Path, admin: httpx2.AsyncClient, case: str, path: str
) -> None:
    body, content_type, status = NO_FORMS[case]

    answer = await send(admin, path, body, {"Content-Type": content_type} if content_type else {})

    assert answer.status_code == status, answer.text
    assert set(answer.json()) >= {"error", "code"}
    assert content_of(tmp_path) == {}


@given(body=st.binary(max_size=300))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_no_body_causes_a_server_error(admin: httpx2.AsyncClient, body: bytes) -> None:
    head = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    for sent in (body, b"--xyz\r\n" + body, head + body, head + body + b"\r\n--xyz--\r\n"):
        answer = await send(admin, WORKSPACE, sent, {"Content-Type": "multipart/form-data; boundary=xyz"})
        assert answer.status_code in (201, 400, 413, 422)


# Bounds


async def a_body_of(size: int, taken: list[int], start: bytes = A_PDF) -> AsyncIterator[bytes]:
    """Yield a form whose file has `size` bytes. Add the size of each chunk to `taken` once it is received."""
    head, foot = form("a.pdf", start + b"\0")[0].split(b"\0")
    yield head
    left = size - len(start)
    while left > 0:
        yield b"x" * min(left, 2**20)
        taken.append(min(left, 2**20))
        left -= 2**20
    yield foot


@pytest.mark.parametrize("path", [WORKSPACE, PDFS])
async def test_a_file_of_100_mib_is_accepted_and_a_larger_one_refused(
    tmp_path: Path, admin: httpx2.AsyncClient, path: str
) -> None:
    headers = form("a")[1]
    answer = await admin.post(path, content=a_body_of(UPLOAD_BYTES, []), headers=headers)
    assert (answer.status_code, answer.json()["size"]) == (201, UPLOAD_BYTES)
    kept = set(content_of(tmp_path))

    answer = await admin.post(path, content=a_body_of(UPLOAD_BYTES + 1, []), headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert set(content_of(tmp_path)) == kept


async def test_a_body_with_too_large_a_content_length_is_refused_unread(admin: httpx2.AsyncClient) -> None:
    taken: list[int] = []
    headers = form("a")[1] | {"Content-Length": str(bounds_of("POST", "/api/uploads").bytes + 1)}

    answer = await admin.post(PDFS, content=a_body_of(UPLOAD_BYTES, taken), headers=headers)

    assert (answer.status_code, answer.json()["error"]) == (413, "the body is larger than 100 MiB")


async def test_other_routes_have_their_own_bound(user: httpx2.AsyncClient) -> None:
    headers = {"Content-Length": str(17 * 2**20), "Content-Type": "application/json"}

    answer = await user.post("/api/jobs/submit", content=b"{}", headers=headers)

    assert (answer.status_code, answer.json()["error"]) == (413, "the body is larger than 16 MiB")


async def test_unfinished_uploads_keep_few_files_open_and_delay_no_other_caller(
    api: Api, user: httpx2.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_stream, "UPLOADS_AT_ONCE", 1)
    sent, may_end = asyncio.Event(), asyncio.Event()
    body, headers = form("a.txt")

    async def slow_body() -> AsyncIterator[bytes]:
        yield body[:-5]
        sent.set()
        await may_end.wait()
        yield body[-5:]

    async with asyncio.TaskGroup() as tasks, asyncio.timeout(DEADLINE_SECONDS), api.client("other") as other:
        slow = tasks.create_task(user.post(WORKSPACE, content=slow_body(), headers=headers))
        await sent.wait()
        waiting = tasks.create_task(upload(user))
        await upload(other)
        assert not waiting.done()
        assert len(list(tmp_path.rglob(".incoming/*"))) == 1
        may_end.set()
    assert (slow.result().status_code, waiting.result()["size"]) == (201, 5)


# PDFs


async def test_a_pdf_is_stored_listed_and_deleted(tmp_path: Path, admin: httpx2.AsyncClient) -> None:
    answer = await admin.post(PDFS, files={"file": ("../Report 2030.pdf", A_PDF, "text/plain")})

    assert answer.status_code == 201
    uploaded = answer.json()
    assert (uploaded["name"], uploaded["size"]) == ("../Report 2030.pdf", len(A_PDF))
    assert (await admin.get(PDFS)).json() == {"uploads": [uploaded]}
    folder = f"workspaces/uploads/{uploaded['id']}"
    assert set(content_of(tmp_path)) == {f"{folder}/document.pdf", f"{folder}/.labrats-upload.json"}
    assert (await admin.delete(f"{PDFS}/{uploaded['id']}")).status_code == 204
    assert (await admin.get(PDFS)).json() == {"uploads": []}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (A_PDF, 201),
        (b"\xef\xbb\xbf junk \n" + A_PDF, 201),
        (b"", 415),
        (b"PK\x03\x04", 415),
        (b"%PD", 415),
        (b"<html>" + b" " * 2000 + A_PDF, 415),
    ],
)
async def test_a_pdf_is_recognized_by_its_content(admin: httpx2.AsyncClient, content: bytes, status: int) -> None:
    answer = await admin.post(PDFS, files={"file": ("a.pdf", content, "application/pdf")})

    assert answer.status_code == status, answer.text


async def test_a_file_other_than_a_pdf_is_refused_before_it_has_arrived(admin: httpx2.AsyncClient) -> None:
    taken: list[int] = []

    answer = await admin.post(PDFS, content=a_body_of(UPLOAD_BYTES, taken, b"PK"), headers=form("a")[1])

    assert answer.status_code == 415
    assert sum(taken) <= 2 * 2**20


# Jobs with uploads


async def test_a_job_gets_the_uploaded_files(api: Api, tmp_path: Path, user: httpx2.AsyncClient) -> None:
    one, two = await upload(user, "one.txt", b"1"), await upload(user, "two.txt", b"22")
    named = [{"id": each["id"], "name": each["name"]} for each in (one, two)]
    brought = {"name": "three.txt", "data": base64.b64encode(b"333").decode()}

    answer = await user.post("/api/jobs/submit", json=a_submission(workspaceUploads=named, workspaceFiles=[brought]))

    assert answer.status_code == 201, answer.text
    job = await api.store.get(Job, answer.json()["jobId"])
    found = {file.name: (tmp_path / "uploads" / file.path).read_bytes() for file in job.spec.files}
    assert found == {"one.txt": b"1", "two.txt": b"22", "three.txt": b"333"}
    assert [file.size for file in job.spec.files] == [1, 2, 3]


async def test_a_job_keeps_its_file_after_the_upload_is_deleted(
    api: Api, tmp_path: Path, user: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    uploaded = await upload(user, "one.txt", b"1")
    named = [{"id": uploaded["id"], "name": "one.txt"}]
    job_id = (await user.post("/api/jobs/submit", json=a_submission(workspaceUploads=named))).json()["jobId"]

    assert (await admin.delete(f"{WORKSPACE}/{uploaded['id']}")).status_code == 204

    (file,) = (await api.store.get(Job, job_id)).spec.files
    assert (tmp_path / "uploads" / file.path).read_bytes() == b"1"


Fields = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        (lambda one: {"id": "up-" + "0" * 16, "name": one["name"]}, "there is no upload"),
        (lambda one: {"id": one["id"], "name": "other.txt"}, "has no file 'other.txt'"),
        (lambda one: {"id": "../" + one["id"], "name": one["name"]}, "there is no upload"),
    ],
)
async def test_a_missing_upload_is_named_in_the_error(
    api: Api, user: httpx2.AsyncClient, named: Fields, sentence: str
) -> None:
    one = await upload(user, "one.txt")
    uploads = [{"id": one["id"], "name": "one.txt"}, named(one)]
    if uploads[1]["name"] == "one.txt":
        uploads.pop(0)

    answer = await user.post("/api/jobs/submit", json=a_submission(workspaceUploads=uploads))

    assert answer.status_code == 422
    (detail,) = answer.json()["details"]
    assert detail["field"] == f"workspaceUploads[{len(uploads) - 1}]"
    assert sentence in detail["message"]
    assert await api.store.list(Job) == []


async def test_a_job_cannot_use_another_callers_upload(api: Api, user: httpx2.AsyncClient) -> None:
    uploaded = await upload(user, "one.txt")
    submission = a_submission(workspaceUploads=[{"id": uploaded["id"], "name": "one.txt"}])

    async with api.client("other") as other, api.client("admin") as admin:
        assert (await other.post("/api/jobs/submit", json=submission)).status_code == 422
        assert (await admin.post("/api/jobs/submit", json=submission)).status_code == 201


async def test_an_upload_and_a_file_cannot_have_the_same_path(user: httpx2.AsyncClient) -> None:
    uploaded = await upload(user, "One.txt")
    submission = a_submission(
        workspaceUploads=[{"id": uploaded["id"], "name": "One.txt"}], workspaceFiles=[{"name": "one.txt", "data": ""}]
    )

    answer = await user.post("/api/jobs/submit", json=submission)

    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "workspaceFiles[0].name")


# Pipelines


async def test_extraction_submits_a_pipeline_for_the_pdf(api: Api, tmp_path: Path, admin: httpx2.AsyncClient) -> None:
    uploaded = (await admin.post(PDFS, files={"file": ("report.pdf", A_PDF)})).json()

    answer = await admin.post(f"{PDFS}/{uploaded['id']}/extract", json={"prompt": "Summarise this.", "effort": "low"})

    assert answer.status_code == 201, answer.text
    job = await api.store.get(Job, answer.json()["jobId"])
    assert (job.spec.type, job.spec.source) == ("document-extraction", "dashboard")
    assert (job.spec.pipeline, job.resolved.config.effort) == (Pipeline(type="pdf-sections"), "low")
    assert job.spec.metadata == {"upload": uploaded["id"], "document": "report.pdf", "title": "report.pdf"}
    (file,) = job.spec.files
    assert (file.name, (tmp_path / "uploads" / file.path).read_bytes()) == ("document.pdf", A_PDF)


async def test_extraction_with_a_local_model_uses_its_provider(api: Api, admin: httpx2.AsyncClient) -> None:
    uploaded = (await admin.post(PDFS, files={"file": ("report.pdf", A_PDF)})).json()
    extract = f"{PDFS}/{uploaded['id']}/extract"
    await admin.post("/api/ai-models", json={"name": "local", "provider": "qwen", "model": "qwen3", "slots": 1})

    answers = [await admin.post(extract, json={"model": model}) for model in ("qwen3", "opus")]

    jobs = [await api.store.get(Job, answer.json()["jobId"]) for answer in answers]
    assert [job.resolved.provider for job in jobs] == ["qwen", "claude"]


async def test_extractions_have_the_names_of_their_pdfs_as_titles(api: Api, admin: httpx2.AsyncClient) -> None:
    for name in ("one.pdf", "two.pdf"):
        uploaded = (await admin.post(PDFS, files={"file": (name, A_PDF)})).json()
        assert (await admin.post(f"{PDFS}/{uploaded['id']}/extract")).status_code == 201

    assert {job.title for job in await api.store.list(Job)} == {"one.pdf", "two.pdf"}


async def test_extraction_needs_no_body(api: Api, admin: httpx2.AsyncClient) -> None:
    uploaded = (await admin.post(PDFS, files={"file": ("report.pdf", A_PDF)})).json()
    extract = f"{PDFS}/{uploaded['id']}/extract"

    assert (await admin.post(extract)).status_code == 201
    assert (await admin.post(extract, content=b'{"effort": "low"}')).status_code == 415
    assert len(await api.store.list(Job)) == 1


async def test_repeated_extraction_gets_the_first_answer_after_the_pdf_was_deleted(
    api: Api, admin: httpx2.AsyncClient
) -> None:
    uploaded = (await admin.post(PDFS, files={"file": ("report.pdf", A_PDF)})).json()
    extract, headers = f"{PDFS}/{uploaded['id']}/extract", {"Idempotency-Key": "key-1"}
    first = await admin.post(extract, headers=headers)
    assert (await admin.delete(f"{PDFS}/{uploaded['id']}")).status_code == 204
    again = await admin.post(extract, headers=headers)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert len(await api.store.list(Job)) == 1


async def test_extraction_of_a_missing_pdf_is_not_found(api: Api, admin: httpx2.AsyncClient) -> None:
    assert (await admin.post(f"{PDFS}/up-{'0' * 16}/extract", json={})).status_code == 404
    assert (await admin.post(f"{PDFS}/up-{'0' * 16}/extract", json={"prompts": "a"})).status_code == 422
    assert await api.store.list(Job) == []


async def test_a_pipeline_needs_a_pdf(api: Api, user: httpx2.AsyncClient) -> None:
    pipeline = {"type": "pdf-sections"}
    text, pdf = await upload(user, "a.pdf", b"just text"), await upload(user, "b", A_PDF)
    named = [{"id": each["id"], "name": each["name"]} for each in (text, pdf)]

    for uploads in ([], named[:1]):
        answer = await user.post("/api/jobs/submit", json=a_submission(pipeline=pipeline, workspaceUploads=uploads))
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "workspaceUploads")
    answer = await user.post("/api/jobs/submit", json=a_submission(pipeline=pipeline, workspaceUploads=named))
    assert answer.status_code == 201


@pytest.mark.parametrize("path", ["/api/uploads", "/api/workspace-uploads"])
async def test_too_long_a_boundary_is_refused(api: Api, path: str) -> None:
    async with api.client("admin") as admin:
        headers = {"Content-Type": f"multipart/form-data; boundary={'x' * 300}"}
        refused = await admin.post(path, content=b"--" + b"x" * 300 + b"--", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "malformed")
