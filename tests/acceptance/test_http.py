"""The API as an HTTP server: limits, methods, content types, and errors of one format."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.acceptance.engine import Engine, User, a_submission

MIB = 1024 * 1024


def is_error(answer: httpx2.Response, status: int, code: str) -> bool:
    """Assert that `answer` is the error in the format of all errors. Return whether it has a message."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    body = answer.json()
    assert set(body) == {"error", "code"} | ({"details"} if status == 422 else set())
    assert body["code"] == code
    return bool(body["error"])


async def connect(engine: Engine) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection for requests that no HTTP client would send."""
    host, port = engine.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def test_unknown_path_is_answered_with_404(user: User) -> None:
    for path in ("/api", "/api/nothing", "/api/jobs/", "/api/jobs/ir-00000000/nothing", "/docs", "/openapi.json"):
        assert is_error(await user.get(path), 404, "not_found")


@pytest.mark.parametrize(
    "job_id", ["ir-00000000", "IR-00000000", "x" * 5000, "%00", "..%2f..", "%F0%9F%93%84", "ir-1%0d%0a"]
)
async def test_unknown_job_is_answered_with_404(user: User, job_id: str) -> None:
    assert is_error(await user.get(f"/api/jobs/{job_id}"), 404, "not_found")
    assert is_error(await user.post(f"/api/jobs/{job_id}/cancel"), 404, "not_found")


async def test_405_names_the_allowed_methods(user: User) -> None:
    for method, path, allowed in (
        ("DELETE", "/api/jobs", "GET, HEAD"),
        ("PUT", "/api/ai-models", "GET, HEAD, POST"),
        ("POST", "/api/ai-models/some", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/api/jobs/ir-00000000/retry", "POST"),
        ("OPTIONS", "/health", "GET, HEAD"),
    ):
        answer = await user.http.request(method, path)
        assert is_error(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed


async def test_head_answers_like_get_without_the_body(user: User) -> None:
    job_id = await user.submit({"hang": True})
    for path in ("/health", "/ready", "/api/openapi.json", "/api/jobs", f"/api/jobs/{job_id}/logs"):
        answer = await user.http.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
    assert (await user.http.head("/api/jobs/ir-00000000")).status_code == 404
    assert (await user.http.head("/health")).headers["content-length"] == "15"
    await user.cancel(job_id)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"],
)
async def test_body_without_a_json_content_type_is_refused(user: User, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}

    answer = await user.http.post("/api/jobs/submit", content=json.dumps(a_submission()), headers=headers)

    assert is_error(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
async def test_json_content_type_ignores_case_and_parameters(user: User, content_type: str) -> None:
    answer = await user.http.post(
        "/api/jobs/submit", content=json.dumps(a_submission()), headers={"Content-Type": content_type}
    )

    assert answer.status_code == 201


async def test_body_with_a_content_length_beyond_the_limit_is_refused(user: User) -> None:
    answer = await user.http.post(
        "/api/jobs/submit", content=b" " * (16 * MIB + 1), headers={"Content-Type": "application/json"}
    )

    assert is_error(answer, 413, "too_large")


async def test_body_with_a_content_length_beyond_the_limit_is_refused_before_it_is_sent(
    engine: Engine, user: User
) -> None:
    reader, writer = await connect(engine)

    writer.write(
        f"POST /api/jobs/submit HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {user.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {16 * MIB + 1}\r\n\r\n".encode()
    )

    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_chunked_body_beyond_the_limit_is_refused(user: User) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield b" " * MIB

    answer = await user.http.post("/api/jobs/submit", content=endless(), headers={"Content-Type": "application/json"})

    assert is_error(answer, 413, "too_large")


async def test_prompt_files_or_metadata_beyond_their_limit_are_refused(user: User) -> None:
    half = "A" * (4 * ((5 * MIB + 2) // 3))  # a little more than 5 MiB, as base64
    for too_much in (
        {"prompt": "x" * (900 * 1024 + 1)},
        {"prompt": "ä" * (450 * 1024 + 1)},
        {"workspaceFiles": [{"name": "a", "data": half}, {"name": "b", "data": half}]},
        {"metadata": {"text": "x" * 64 * 1024}},
    ):
        assert is_error(await user.post("/api/jobs/submit", a_submission(**too_much)), 413, "too_large")
    assert (await user.get("/api/jobs")).json()["total"] == 0


async def test_files_up_to_their_limit_are_accepted(user: User) -> None:
    five = "A" * (4 * (5 * MIB // 3))

    files = [{"name": "a", "data": five}, {"name": "b", "data": five}]

    assert (await user.run(workspaceFiles=files))["status"] == "completed"


async def test_answers_forbid_caching_and_content_sniffing(user: User) -> None:
    for path in ("/health", "/api/jobs", "/api/nothing", "/metrics"):
        headers = (await user.get(path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


@pytest.mark.parametrize(
    "request_line",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nx\x00y: z\r\n\r\n",
    ],
)
async def test_malformed_request_is_answered_with_an_error_in_the_common_format(
    engine: Engine, request_line: bytes
) -> None:
    reader, writer = await connect(engine)

    writer.write(request_line)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert set(json.loads(body)) == {"error", "code"}
    writer.close()


async def test_openapi_document_and_its_html_page_are_served_without_a_key(engine: Engine) -> None:
    async with engine.client() as anonymous:
        document, page = await anonymous.get("/api/openapi.json"), await anonymous.get("/api/docs")

    assert document.json()["openapi"].startswith("3.1")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path in document.json()["paths"]:
        assert path in page.text
    assert "<script" not in page.text
    assert "<link" not in page.text
    assert " src=" not in page.text
